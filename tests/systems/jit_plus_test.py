"""`jit_plus` beside `jit`: each of its parts, and none of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import distill, systems, updates
from ojd.types import Labels
from tests.reference import scenes, tiny_student

STUDENT = tiny_student.make()
TX = updates.sgd(learning_rate=0.3)
# Of these it is `jit`.
NOTHING = dict(
  pre_update_schedule=False, target_margin=0.0, step_scale=0.0, stride_scale=1.0
)
CONSTANTS = dict(a_thresh=0.7, delta_min=2, delta_max=16, u_max=4)


def _plus(tx=TX, base=NOTHING, **options):
  return systems.jit_plus(STUDENT, tx, **CONSTANTS | base | options)


def _labels_of(labels, t):
  return Labels(labels.classes[t], labels.weights[t])


def _scan(system, frames, labels):
  state = system.init(jax.random.key(0), frames[0])
  return distill.scan_stream(system, state, frames, labels)


def _first(system, num_frames=1):
  frames, labels = scenes.coloured_squares(num_frames)
  return system.init(jax.random.key(0), frames[0]), frames, labels


@pytest.mark.parametrize("jit", [False, True])
def test_without_extras_it_is_jit(jit):
  num_frames = 40 if jit else 6
  frames, labels = scenes.coloured_squares(num_frames)
  ours, theirs = _plus(), systems.jit(STUDENT, TX, **CONSTANTS)
  run = lambda system: _scan(system, frames, labels)
  if jit:
    run = lambda system: jax.jit(lambda: _scan(system, frames, labels))()
  else:
    run = functools.partial(_by_hand, frames=frames, labels=labels)
  (state, rest), (expected, expected_rest) = run(ours), run(theirs)
  for a, b in zip(
    jax.tree.leaves((state.params, state.schedule, rest)),
    jax.tree.leaves((expected.params, expected.schedule, expected_rest)),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def _by_hand(system, frames, labels):
  """The host loop without any compilation."""
  state, outputs = system.init(jax.random.key(0), frames[0]), []
  for t, frame in enumerate(frames):
    if t == int(system.next_key(state)):
      state, *output = system.learn(state, frame, _labels_of(labels, t))
    else:
      state, *output = system.predict(state, frame)
    outputs.append(output)
  return state, outputs


def test_stride_follows_the_accuracy_before_the_updates():
  """A student that learns each frame by heart still asks again soon."""
  learns_all = dict(a_thresh=0.5, u_max=30)
  state, frames, labels = _first(_plus(**learns_all))
  answers = {}
  for is_before in (False, True):
    plus = _plus(pre_update_schedule=is_before, **learns_all)
    learn = jax.jit(plus.learn)
    after, _, info = learn(state, frames[0], _labels_of(labels, 0))
    assert info.miou_before < 0.5 < info.miou_after
    assert info.stride == after.schedule.stride
    answers[is_before] = int(info.stride)
    # Of a frame that it knows already, both think well.
    after, _, info = learn(after, frames[0], _labels_of(labels, 0))
    assert info.num_updates == 0
    assert int(info.stride) == 2 * answers[is_before]
  assert answers == {False: 4, True: 2}


@pytest.mark.parametrize(("delta_min", "least"), [(2, 3), (8, 12), (16, 24)])
def test_stride_scale_is_of_the_least_stride(delta_min, least):
  options = dict(delta_min=delta_min, u_max=0, a_thresh=1.0)
  system = _plus(stride_scale=1.5, **options)
  state, frames, labels = _first(system)
  state = state._replace(t=jnp.asarray(1))
  assert int(system.next_key(state)) == least
  _, _, info = system.learn(state, frames[0], _labels_of(labels, 0))
  assert int(info.stride) == least


def test_target_margin_goes_on_after_the_threshold():
  """Half the way from 0.6 to 1 is 0.8."""
  frames, labels = scenes.coloured_squares(1)
  for margin, threshold in ((0.0, 0.6), (0.5, 0.8)):
    system = _plus(target_margin=margin, a_thresh=0.6, u_max=60)
    state = system.init(jax.random.key(0), frames[0])
    learn = jax.jit(system.learn)
    _, _, info = learn(state, frames[0], _labels_of(labels, 0))
    expected = distill.adapt(
      *(STUDENT, TX, state.params, TX.init(state.params), frames[0]),
      _labels_of(labels, 0),
      a_thresh=threshold,
      u_max=60,
    )
    assert int(info.num_updates) == int(expected.num_updates)
    assert info.miou_after >= threshold


def test_step_scale_lengthens_steps_by_what_was_wrong_at_first():
  scaled = _plus(updates.sgd(learning_rate=0.1), step_scale=4.0, a_thresh=1.0)
  state, frames, labels = _first(scaled)
  after, _, info = scaled.learn(state, frames[0], _labels_of(labels, 0))
  assert int(info.num_updates) == 4
  assert 0 < info.miou_before < info.miou_after
  rate = 0.1 * (1 + 4 * (1 - float(info.miou_before)))
  alike = systems.jit(
    STUDENT, updates.sgd(learning_rate=rate), **CONSTANTS | {"a_thresh": 1}
  )
  expected, _, _ = alike.learn(
    alike.init(jax.random.key(0), frames[0]), frames[0], _labels_of(labels, 0)
  )
  for ours, theirs in zip(
    jax.tree.leaves(after.params), jax.tree.leaves(expected.params), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_stride_scale_is_of_the_most_updates_too():
  frames, labels = scenes.coloured_squares(1)
  for u_max, expected in ((4, 5), (8, 10)):
    tx = updates.sgd(learning_rate=1e-4)
    system = _plus(tx, stride_scale=1.25, u_max=u_max, a_thresh=1.0)
    state = system.init(jax.random.key(0), frames[0])
    _, _, info = system.learn(state, frames[0], _labels_of(labels, 0))
    assert int(info.num_updates) == expected


@pytest.mark.parametrize(
  ("option", "is_before", "stride", "u_max"),
  [
    ("", True, 10, 10),
    ("pre_update_schedule=false", False, 10, 10),
    ("stride_scale=1", True, 8, 8),
    ("target_margin=0", True, 10, 10),
    ("step_scale=0", True, 10, 10),
  ],
)
def test_options_leave_a_part_out(option, is_before, stride, u_max):
  """A key frame shows that all other parts are there."""
  name = f"jit_plus:{option}" if option else "jit_plus"
  frames, labels = scenes.coloured_squares(1)

  def learn(a_thresh, rate, name=name, **constants):
    bound = systems.bind(name, {"a_thresh": a_thresh, **constants})
    system = systems.make(bound, STUDENT, updates.sgd(learning_rate=rate))
    state = system.init(jax.random.key(0), frames[0])
    return jax.jit(system.learn)(state, frames[0], _labels_of(labels, 0))

  state, _, info = learn(1.0, 1e-4)
  assert (int(info.stride), int(info.num_updates)) == (stride, u_max)
  before = float(info.miou_before)
  # Steps so short add up in a straight line, each as long as the next.
  first = STUDENT.init(jax.random.key(0), frames[0])["bias"]
  alike, _, _ = learn(1.0, 1e-4, "jit", u_max=u_max)
  moved, expected = (x.params["bias"] - first for x in (state, alike))
  length = 1.0 if option == "step_scale=0" else 1 + 5 * (1 - before)
  np.testing.assert_allclose(moved, length * expected, rtol=0.05)
  # Learnt past the threshold: only who judges by that looks away for longer.
  _, _, info = learn(before + 0.01, 0.02)
  assert info.miou_after > before + 0.01
  assert int(info.stride) == (stride if is_before else 2 * stride)
  goes_on = info.miou_after >= before + 0.01 + (1 - before - 0.01) / 2
  assert goes_on == (option != "target_margin=0")
  assert systems.update_of(systems.bind(name)) == "fast_head"


def test_it_compiles_once():
  frames, labels = scenes.coloured_squares(8)
  system, traces = _plus(base={}), []

  @jax.jit
  def learn(state, frame, label):
    traces.append("learn")
    return system.learn(state, frame, label)

  state = jax.jit(system.init)(jax.random.key(0), frames[0])
  for t in range(3):
    state, _, _ = learn(state, frames[t], _labels_of(labels, t))
  assert traces == ["learn"]


def test_thresholds_and_strides_in_one_call():
  frames, labels = scenes.coloured_squares(24)

  def run(a_thresh, delta_min):
    system = _plus(base={}, a_thresh=a_thresh, delta_min=delta_min)
    return _scan(system, frames, labels)

  values = jnp.array([0.3, 0.9]), jnp.array([2, 4])
  _, (_, together) = jax.jit(jax.vmap(run))(*values)
  for i in range(2):
    _, (_, alone) = jax.jit(run)(values[0][i], values[1][i])
    np.testing.assert_array_equal(together.is_key[i], alone.is_key)
    np.testing.assert_array_equal(together.stride[i], alone.stride)

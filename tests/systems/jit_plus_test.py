"""`jit_plus` beside `jit`: each of its parts, and none of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import distill, systems, updates
from tests.reference import host_loop, scenes, tiny_student

STUDENT = tiny_student.make()
TX = updates.sgd(learning_rate=0.3)
CONSTANTS = dict(a_thresh=0.7, delta_min=2, delta_max=16, u_max=4)
# What makes it `jit`.
PLAIN = dict(
  pre_update_schedule=False, target_margin=0.0, step_scale=0.0, stride_scale=1.0
)


def _plus(tx=TX, **options):
  return systems.jit_plus(STUDENT, tx, **CONSTANTS | PLAIN | options)


def _scan(system, frames, labels):
  state = system.init(jax.random.key(0), frames[0])
  return distill.scan_stream(system, state, frames, labels)


def _first(system):
  """-> the state after one key frame, its info; and to learn it again."""
  frames, labels = scenes.coloured_squares(1)
  learn = jax.jit(system.learn)
  again = lambda state: learn(state, frames[0], host_loop.labels_of(labels, 0))
  state, _, info = again(host_loop.begin(system, frames[0]))
  return state, info, again


@pytest.mark.parametrize("jit", [False, True])
def test_without_extras_it_is_jit(jit):
  stream = scenes.coloured_squares(40 if jit else 6)
  ours, theirs = (
    host_loop.play(system, *stream, jit=jit)
    for system in (_plus(), systems.jit(STUDENT, TX, **CONSTANTS))
  )
  assert ours.keys == theirs.keys
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
    (ours.state, ours.answers, ours.infos),
    (theirs.state, theirs.answers, theirs.infos),
  )


def test_stride_follows_the_accuracy_before_the_updates():
  """A student that learns each frame by heart still asks again soon."""
  for is_before, stride in ((False, 4), (True, 2)):
    system = _plus(pre_update_schedule=is_before, a_thresh=0.5, u_max=30)
    state, info, again = _first(system)
    assert info.miou_before < 0.5 < info.miou_after
    assert info.stride == state.schedule.stride == stride
    # Of a frame that it knows already, both think well.
    _, _, info = again(state)
    assert info.num_updates == 0 and info.stride == 2 * stride


@pytest.mark.parametrize(
  ("delta_min", "factor", "least"),
  [(2, 1.5, 3), (8, 1.5, 12), (16, 1.5, 24), (8, 1.25, 10)],
)
def test_stride_scale_is_of_the_least_stride_and_of_the_most_updates(
  delta_min, factor, least
):
  system = _plus(
    updates.sgd(learning_rate=1e-4),
    **dict(stride_scale=factor, delta_min=delta_min, u_max=8, a_thresh=1.0),
  )
  state, info, _ = _first(system)
  assert int(info.stride) == least
  assert int(info.num_updates) == round(8 * factor)
  begin = host_loop.begin(system, np.zeros((16, 20, 3), np.uint8))
  assert int(system.next_key(begin._replace(t=jnp.asarray(1)))) == least


def test_target_margin_goes_on_after_the_threshold():
  """Half the way from 0.6 to 1 is 0.8."""
  for margin, threshold in ((0.0, 0.6), (0.5, 0.8)):
    _, info, _ = _first(_plus(target_margin=margin, a_thresh=0.6, u_max=60))
    plain = CONSTANTS | dict(a_thresh=threshold, u_max=60)
    _, expected, _ = _first(systems.jit(STUDENT, TX, **plain))
    assert info.num_updates == expected.num_updates
    assert info.miou_after >= threshold


def test_step_scale_lengthens_every_step_by_what_was_wrong_at_first():
  rate = 0.1
  system = _plus(updates.sgd(learning_rate=rate), step_scale=4.0, a_thresh=1.0)
  state, info, _ = _first(system)
  assert int(info.num_updates) == 4
  assert 0 < info.miou_before < info.miou_after
  rate *= 1 + 4 * (1 - float(info.miou_before))
  plain = CONSTANTS | {"a_thresh": 1}
  expected, _, _ = _first(
    systems.jit(STUDENT, updates.sgd(learning_rate=rate), **plain)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
    state.params,
    expected.params,
  )


def test_thresholds_and_strides_in_one_call():
  frames, labels = scenes.coloured_squares(24)

  def run(a_thresh, delta_min):
    system = systems.jit_plus(
      STUDENT, TX, **CONSTANTS | dict(a_thresh=a_thresh, delta_min=delta_min)
    )
    return _scan(system, frames, labels)

  values = jnp.array([0.3, 0.9]), jnp.array([2, 4])
  _, (_, together) = jax.jit(jax.vmap(run))(*values)
  for i in range(2):
    _, (_, alone) = jax.jit(run)(values[0][i], values[1][i])
    np.testing.assert_array_equal(together.is_key[i], alone.is_key)
    np.testing.assert_array_equal(together.stride[i], alone.stride)

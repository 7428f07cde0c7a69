"""Systems that run their network whole on some frames only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import systems, updates
from ojd.errors import UserError
from ojd.models.delta import changes, skip
from ojd.models.delta.conversion import convert
from ojd.systems.delta import make_small, refreshed
from ojd.tasks.segmentation import classify
from tests.reference import host_loop, kernels, layered_student, scenes
from tests.reference.compare import close, equal

STUDENT = layered_student.STUDENT
TX = updates.sgd(learning_rate=0.05)
FRAMES, LABELS = scenes.coloured_squares(8)
PAIR = changes.from_key(changes.pair(gamma=2))
LEARNER = systems.fixed(STUDENT, TX, stride=3, u_max=1, u_min=1)
FROZEN = systems.frozen(STUDENT)


def _system(rule=PAIR, learner=LEARNER, **constants):
  return refreshed(convert(STUDENT, rule), learner, **constants)


def _scan(system):
  return host_loop.compiled_scan(system, FRAMES, LABELS)


@pytest.mark.parametrize(
  ("rule", "interval"),
  [
    (changes.from_key(changes.same()), 8),
    (skip.skip(skip.by_norm(0.0)), 8),
    (PAIR, 1),
  ],
)
def test_exact_rule_gives_the_learners_own_answers(rule, interval):
  state, (classes, infos) = _scan(_system(rule, interval=interval))
  plain, (expected, theirs) = _scan(LEARNER)
  assert np.mean(classes != expected) < 1e-3
  close((state.params, infos), (plain.params, theirs), 1e-7, 1e-5)
  assert infos.is_key.tolist() == [t % 3 == 0 for t in range(8)]


def test_frozen_student_follows_the_frames_by_hand():
  net = convert(STUDENT, PAIR)
  system = refreshed(net, FROZEN, interval=3)
  state, (classes, _) = _scan(system)
  params = {"model": state.params, "delta": state.delta}
  whole, between = jax.jit(net.apply_key), jax.jit(net.apply_delta)
  for t, frame in enumerate(FRAMES):
    if t % 3 == 0:
      logits, cache = whole(params, frame)
    else:
      logits, cache, gmac, _ = between(params, cache, frame)
    assert np.mean(classes[t] != classify(logits)) < 3e-3
  assert int(state.age) == 2 and int(state.t) == 8
  assert 0 < gmac < net.gmac(FRAMES[0])
  total = 3 * net.gmac(FRAMES[0]) + 5 * float(gmac)
  assert float(system.serving.gmac(state)) == pytest.approx(total, rel=1e-5)


def test_what_was_learnt_reaches_the_rules_and_the_next_frame():
  system = _system()
  first = host_loop.begin(system, FRAMES[0])
  state, _, info = host_loop.first(system, FRAMES, LABELS)
  assert int(info.num_updates) == 1
  kernel = state.params["dec1"]["conv"]["kernel"]
  assert np.abs(kernel - first.params["dec1"]["conv"]["kernel"]).max() > 1e-4
  off = lambda pair: np.linalg.norm(kernel - kernels.join(**pair))
  old, found = (x.delta["dec1"]["conv"] for x in (first, state))
  best = dict(
    zip(("first", "second"), changes.split_kernel(kernel, 4), strict=True)
  )
  assert off(best) <= off(found) + 1e-5 <= 1.001 * off(best) + 2e-5
  assert off(old) > off(found)
  # The very frame: nothing changed since, so that the student has it all.
  _, classes = jax.jit(system.predict)(state, FRAMES[0])
  plain = classify(STUDENT.apply(state.params, FRAMES[0]))
  assert np.mean(classes != plain) < 1e-3
  state, _, _ = host_loop.first(_system(refit=False), FRAMES, LABELS)
  equal(state.delta, first.delta)


def test_frame_unlike_the_last_refresh_is_one_itself():
  system = _system(learner=FROZEN, interval=100, threshold=20.0)
  predict = jax.jit(system.predict)
  state = host_loop.begin(system, FRAMES[0])
  ages = []
  near, far = FRAMES[0] + 5, FRAMES[0] // 2
  for frame in (FRAMES[0], near, far, far):
    state, _ = predict(state, frame)
    ages.append(int(state.age))
  assert ages == [1, 2, 1, 2]
  assert predict._cache_size() == 1
  # Looks are kept only where they are asked for.
  assert state.look.shape[2] == 3
  assert host_loop.begin(_system(learner=FROZEN), FRAMES[0]).look is None


def test_small_frame_holds_the_means_of_blocks():
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (37, 50, 3)).astype(np.uint8)
  found = make_small(frame)
  assert found.shape == (16, 16, 3)
  expected = frame[4:6, 9:12].mean((0, 1))
  np.testing.assert_allclose(found[2, 3], expected, rtol=1e-6)


def test_lanes_of_other_intervals_are_alone():
  def run(interval):
    system = _system(learner=FROZEN, interval=interval)
    state, (classes, _) = host_loop.scan(
      system, FRAMES, LABELS, axis_name="lanes"
    )
    return classes, state.age

  together, ages = jax.jit(jax.vmap(run, axis_name="lanes"))(jnp.array([1, 3]))
  assert ages.tolist() == [1, 2]
  for classes, learner in zip(
    together, (FROZEN, _system(learner=FROZEN, interval=3)), strict=True
  ):
    assert np.mean(classes != _scan(learner)[1][0]) < 1e-3


def test_only_a_student_alone_can_be_refreshed():
  with pytest.raises(UserError, match="interval=0: at least 1"):
    _system(interval=0)
  with pytest.raises(UserError, match="its student alone"):
    _system(learner=systems.jit(STUDENT, TX, norm="key_frame"))

"""Systems that run their network whole on some frames only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import distill, systems, updates
from ojd.errors import UserError
from ojd.models.delta import changes, skip
from ojd.models.delta.convert import convert
from ojd.systems.delta import make_small, refreshed
from ojd.tasks.segmentation import classify
from tests.reference import host_loop, kernels, layered_student, scenes

STUDENT = layered_student.STUDENT
TX = updates.sgd(learning_rate=0.05)
FRAMES, LABELS = scenes.coloured_squares(8)
LABELS_0 = host_loop.labels_of(LABELS, 0)
PAIR = changes.from_key(changes.pair(gamma=2))


def _learner(stride=3):
  return systems.fixed(STUDENT, TX, stride=stride, u_max=1, u_min=1)


def _system(rule=PAIR, learner=None, **constants):
  net = convert(STUDENT, rule)
  return refreshed(net, learner or _learner(), **constants)


def _scan(system, frames=FRAMES, labels=LABELS):
  @jax.jit
  def run():
    state = system.init(jax.random.key(0), frames[0])
    return distill.scan_stream(system, state, frames, labels)

  return run()


@pytest.mark.parametrize("word", ["same", "skip", "whole"])
def test_exact_rule_gives_the_learners_own_answers(word):
  rule, interval = {
    "same": (changes.from_key(changes.same()), 8),
    "skip": (skip.skip(skip.by_norm(0.0)), 8),
    "whole": (PAIR, 1),
  }[word]
  learner = _learner()
  state, (classes, infos) = _scan(_system(rule, learner, interval=interval))
  plain, (expected, theirs) = _scan(learner)
  assert np.mean(classes != expected) < 1e-3
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    (state.params, infos),
    (plain.params, theirs),
  )
  assert infos.is_key.tolist() == [t % 3 == 0 for t in range(8)]


def test_frozen_student_follows_the_frames_by_hand():
  net = convert(STUDENT, PAIR)
  system = refreshed(net, systems.frozen(STUDENT), interval=3)
  state, (classes, _) = _scan(system)
  params = {"model": state.params, "delta": state.delta}
  whole, between = jax.jit(net.apply_key), jax.jit(net.apply_delta)
  for t, frame in enumerate(FRAMES):
    if t % 3 == 0:
      logits, cache = whole(params, frame)
    else:
      logits, cache, *_ = between(params, cache, frame)
    assert np.mean(classes[t] != classify(logits)) < 3e-3
  assert int(state.age) == 2 and int(state.t) == 8
  between = float(jax.jit(net.apply_delta)(params, cache, frame).gmac)
  assert 0 < between < net.gmac(FRAMES[0])
  total = 3 * net.gmac(FRAMES[0]) + 5 * between
  assert float(system.serving.gmac(state)) == pytest.approx(total, rel=1e-5)


def test_what_was_learnt_reaches_the_rules_and_the_next_frame():
  system = _system()
  first = jax.jit(system.init)(jax.random.key(0), FRAMES[0])
  state, _, info = jax.jit(system.learn)(first, FRAMES[0], LABELS_0)
  assert int(info.num_updates) == 1
  kernel = state.params["dec1"]["conv"]["kernel"]
  assert np.abs(kernel - first.params["dec1"]["conv"]["kernel"]).max() > 1e-4
  found = state.delta["dec1"]["conv"]
  off = lambda first, second: np.linalg.norm(
    kernel - kernels.join(first, second)
  )
  old = first.delta["dec1"]["conv"]
  best = off(*changes.split_kernel(kernel, 4))
  assert best <= off(**found) + 1e-5 <= 1.001 * best + 2e-5
  assert off(**old) > off(**found)
  # The very frame: nothing changed since, so that the student has it all.
  _, classes = jax.jit(system.predict)(state, FRAMES[0])
  plain = classify(STUDENT.apply(state.params, FRAMES[0]))
  assert np.mean(classes != plain) < 1e-3
  kept = _system(refit=False)
  state, _, _ = jax.jit(kept.learn)(first, FRAMES[0], LABELS_0)
  jax.tree.map(np.testing.assert_array_equal, state.delta, first.delta)


def test_frame_unlike_the_last_refresh_is_one_itself():
  system = _system(
    learner=systems.frozen(STUDENT), interval=100, threshold=20.0
  )
  predict = jax.jit(system.predict)
  state = jax.jit(system.init)(jax.random.key(0), FRAMES[0])
  ages = []
  near, far = FRAMES[0] + 5, FRAMES[0] // 2
  for frame in (FRAMES[0], near, far, far):
    state, _ = predict(state, frame)
    ages.append(int(state.age))
  assert ages == [1, 2, 1, 2]
  assert predict._cache_size() == 1


def test_frames_are_compared_only_where_a_threshold_is_asked_for():
  frozen = systems.frozen(STUDENT)
  begin = lambda system: system.init(jax.random.key(0), FRAMES[0])
  plain, watching = (
    _system(learner=frozen),
    _system(threshold=1, learner=frozen),
  )
  assert begin(plain).look is None and begin(watching).look.shape[2] == 3
  state, _ = plain.predict(begin(plain), FRAMES[0])
  assert state.look is None
  # Above no difference there is: the same answers as without.
  never = _system(learner=frozen, threshold=255)
  (_, (same, _)), (_, (other, _)) = _scan(plain), _scan(never)
  np.testing.assert_array_equal(same, other)


def test_small_frame_holds_the_means_of_blocks():
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (37, 50, 3)).astype(np.uint8)
  found = make_small(frame)
  assert found.shape == (16, 16, 3)
  np.testing.assert_allclose(
    found[2, 3], frame[4:6, 9:12].mean((0, 1)), rtol=1e-6
  )


def test_lanes_of_other_intervals_are_alone():
  def run(interval):
    system = _system(learner=systems.frozen(STUDENT), interval=interval)
    state = system.init(jax.random.key(0), FRAMES[0])
    state, (classes, _) = distill.scan_stream(
      *(system, state, FRAMES, LABELS), axis_name="lanes"
    )
    return classes, state.age

  together, ages = jax.jit(jax.vmap(run, axis_name="lanes"))(jnp.array([1, 3]))
  assert ages.tolist() == [1, 2]
  whole, _ = together[0], together[1]
  plain = _scan(systems.frozen(STUDENT))[1][0]
  assert np.mean(whole != plain) < 1e-3


def test_only_a_student_alone_can_be_refreshed():
  with pytest.raises(UserError, match="interval=0: at least 1"):
    _system(interval=0)
  with pytest.raises(UserError, match="its student alone"):
    _system(learner=systems.jit(STUDENT, TX, norm="key_frame"))

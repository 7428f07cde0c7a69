"""Training rounds from memory, beside Adam and a sort; both rates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import flatten_util

from ojd import losses, systems, updates
from ojd.systems.ams import as_sent
from ojd.types import Labels
from tests.reference import host_loop, scenes, tiny_student

STUDENT = tiny_student.make()
RATE, FRACTION, TURNS = 0.05, 0.25, 3
FRAMES, LABELS = scenes.coloured_squares(40)
ADAM = updates.adam(learning_rate=RATE)
# A sample on every second frame, a round on every eighth.
TIMING = dict(
  fps=4.0,
  num_frames=None,
  sampling_rate=2.0,
  train_period=2.0,
  horizon=100.0,
  adaptive_sampling=False,
)


def _system(tx=None, **changes):
  tx = tx or updates.top_k(learning_rate=RATE, fraction=FRACTION)
  given = {"iterations": TURNS, "batch_size": 2}
  return systems.ams(STUDENT, tx, **TIMING | given | changes)


def _run(system, num_frames, frames=FRAMES, labels=LABELS, jit=True):
  """-> the state at last, and by sample (t, info, parameters after it)."""
  params = []
  found = host_loop.play(
    *(system, frames[:num_frames], labels),
    seen_fn=lambda t, state: params.append(_flat(state.params)) or state,
    jit=jit,
  )
  triples = zip(found.keys, found.infos.values(), params, strict=True)
  return found.state, list(triples)


def _rounds(entries):
  """(t, number of updates) of the samples with any."""
  counts = [(t, int(info.num_updates)) for t, info, _ in entries]
  return [(t, count) for t, count in counts if count]


def _still(num_frames):
  """The first frame again and again."""
  repeat = lambda x: np.repeat(x[:1], num_frames, axis=0)
  return repeat(FRAMES), Labels(*map(repeat, LABELS))


def _flat(tree):
  return np.array(flatten_util.ravel_pytree(tree)[0])


@pytest.mark.parametrize("jit", [True, False])
def test_rounds_are_adam_on_the_largest_coordinates(jit):
  """With a memory of the newest sample alone nothing is left to chance."""
  system = _system(horizon=0.1)
  first = host_loop.begin(system, FRAMES[0])
  state, entries = _run(system, 17, jit=jit)
  assert [t for t, *_ in entries] == list(range(0, 17, 2))
  assert _rounds(entries) == [(8, TURNS), (16, TURNS)]
  found = {t: params for t, _, params in entries}

  adam = optax.adam(RATE)
  ours, unravel = flatten_util.ravel_pytree(first.params)
  adam_state = adam.init(first.params)
  count = round(FRACTION * ours.size)
  # The first choice is random: what moved tells it.
  mask = found[8] != np.asarray(ours)
  assert 0.8 * count < mask.sum() <= count
  # What moves is what half precision holds; moments are dense.
  halves = found[8].astype(np.float16).astype(np.float32)
  np.testing.assert_array_equal(found[8][mask], halves[mask])
  assert not np.array_equal(halves, found[8])
  assert (_flat(state.opt_state.adam[0].nu) > 0).mean() > 0.95
  gradient = jax.jit(jax.grad(_loss))
  for t in (8, 16):
    before = ours
    for _ in range(TURNS):
      labels = host_loop.labels_of(LABELS, t)
      grads = gradient(unravel(ours), FRAMES[t], labels)
      steps, adam_state = adam.update(grads, adam_state)
      last = _flat(steps)
      ours = ours + np.where(mask, last, 0)
    halves = np.asarray(ours).astype(np.float16).astype(np.float32)
    ours = jnp.where(ours != before, halves, ours)
    # A value between two halves may fall to either.
    np.testing.assert_allclose(found[t], ours, rtol=2e-3, atol=1e-4)
    mask = np.zeros(ours.size, bool)
    mask[np.argsort(-np.abs(last))[:count]] = True


def _loss(params, frame, labels):
  return losses.weighted_cross_entropy(STUDENT.apply(params, frame), labels)


def test_batches_are_of_the_horizon_and_mean():
  """Frames before it may be anything; those within it matter."""
  seen = {}
  for name, changed in (("as is", []), ("old", [0, 2]), ("new", [4, 6])):
    frames = FRAMES.copy()
    frames[changed] = 255 - frames[changed]
    _, entries = _run(_system(horizon=1.0, batch_size=8), 9, frames)
    assert _rounds(entries) == [(8, TURNS)]
    seen[name] = entries[-1][2]
  np.testing.assert_array_equal(seen["as is"], seen["old"])
  assert not np.array_equal(seen["as is"], seen["new"])
  # Of equal samples the mean is as one.
  one, five = (
    _run(_system(ADAM, batch_size=size), 9, *_still(9))[1][-1][2]
    for size in (1, 5)
  )
  np.testing.assert_allclose(one, five, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["sampling", "training"])
def test_sampling_follows_the_labels(name):
  """A still scene, ten samples a round at first; the rule by hand."""
  system = _system(
    **dict(fps=10.0, sampling_rate=5.0, train_period=1.0, iterations=1),
    adaptive_sampling=True,
    adaptive_training=name == "training",
  )
  state, entries = _run(system, 200, *_still(200))
  times = [t for t, *_ in entries]
  strides = [int(info.stride) for _, info, _ in entries]
  assert np.diff(times).tolist() == strides[:-1]
  # 5 a second, then 4, 3, 2, 1 and a tenth of 5.
  assert sorted(set(strides)) == [2, 3, 5, 10, 20]
  gap = np.diff([t for t, _ in _rounds(entries)])[-1]
  if name == "sampling":
    assert gap == 20 and float(state.training.period) == 1
  else:  # 1.2 s, 1.4 s ...: on the next sample, 2 s apart
    assert gap >= 20 and float(state.training.period) > 1.5
  assert float(state.rate) == 0.5


def test_one_time_is_one_long_round():
  frames = np.concatenate([FRAMES, FRAMES])
  labels = Labels(*(np.concatenate([x, x]) for x in LABELS))
  _, entries = _run(_system(ADAM, one_time=True), 80, frames, labels)
  assert _rounds(entries) == [(48, 10 * TURNS)]


def test_values_without_room_in_half_precision_stay():
  values = jnp.array([1 / 3, 70000.0, -1e-9], jnp.float32)
  expected = np.array([np.float16(1 / 3), 70000, 0], np.float32)
  np.testing.assert_array_equal(as_sent(values), expected)


@pytest.mark.parametrize("name", ["adam", "ema", "replay", "nonfinite_guard"])
def test_steps_with_a_will_of_their_own(name):
  """Each does in a round what it does on a key frame; or is undone."""
  make = updates.STEPS[name].factory
  system = _system(make(learning_rate=0.01))
  state, entries = _run(system, 17)
  assert _rounds(entries) == [(8, TURNS), (16, TURNS)]
  answers = _flat(system.serving.params(state))
  assert np.array_equal(answers, _flat(state.params)) == (name != "ema")
  assert not any(int(info.num_rolled_back) for _, info, _ in entries)
  if name == "replay":
    assert int(state.opt_state.num_seen) == 2
  broken = _system(make(learning_rate=np.float32(np.inf)))
  _, entries = _run(broken, 9)
  _, info, params = entries[-1]
  assert int(info.num_updates) == 0 and int(info.num_rolled_back) == TURNS
  first = host_loop.begin(broken, FRAMES[0]).params
  np.testing.assert_array_equal(params, _flat(first))

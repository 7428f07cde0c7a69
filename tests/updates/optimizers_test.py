"""Gradient steps of all parameters: against torch, and each other; replay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from ojd import losses, systems, updates
from ojd.errors import UserError
from ojd.models.student import Student
from ojd.tasks.segmentation import classify
from ojd.types import Labels
from tests.reference import host_loop, layered_student, tiny_student
from tests.reference.compare import close, equal

TINY, LAYERED = tiny_student.make(), layered_student.STUDENT
FRAMES = layered_student.FRAMES
RATE = 0.1
SGD = updates.sgd(learning_rate=RATE)
REPLAY = updates.STEPS["replay"].factory(learning_rate=RATE)

MATRIX = np.float32([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
START = np.float32([1.0, -2.0, 0.5])
NUM_STEPS = 5

TORCH = {
  "sgd": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
  "nesterov": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True),
  "adam": lambda p, lr: torch.optim.Adam(p, lr),
}


def _ours(name, learning_rate):
  """Parameters after each step, [NUM_STEPS, 3]."""
  tx = updates.STEPS[name].factory(learning_rate=learning_rate)
  loss = lambda x: 0.5 * x @ MATRIX @ x
  params = jnp.asarray(START)
  opt_state, path = tx.init(params), []
  for _ in range(NUM_STEPS):
    steps, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
    params = optax.apply_updates(params, steps)
    path.append(params)
  return jnp.stack(path)


def _theirs(name, learning_rate):
  params = torch.tensor(START, requires_grad=True)
  optimiser, path = TORCH[name]([params], learning_rate), []
  for _ in range(NUM_STEPS):
    optimiser.zero_grad()
    (0.5 * params @ torch.from_numpy(MATRIX) @ params).backward()
    optimiser.step()
    path.append(params.detach().numpy().copy())
  return np.stack(path)


@pytest.mark.parametrize("name", TORCH)
def test_steps_at_many_rates_equal_torch(name):
  rates = jnp.array([0.001, 0.01, 0.1])
  together = jax.jit(jax.vmap(lambda rate: _ours(name, rate)))(rates)
  expected = [_theirs(name, float(rate)) for rate in rates]
  np.testing.assert_allclose(together, expected, rtol=2e-5)
  np.testing.assert_allclose(_ours(name, 0.1), expected[-1], rtol=2e-5)


def test_text_that_names_no_step_is_refused():
  with pytest.raises(UserError, match="unknown; known are sgd, nesterov"):
    updates.create("fast")
  with pytest.raises(UserError, match="has learning_rate, too"):
    updates.create("top_k:learning_rate=0.1", learning_rate=0.2)


def test_fast_head_is_adam_with_steps_ten_times_as_long_in_the_head():
  frame = np.zeros((32, 32, 3), np.uint8)
  names = ("conv1", "enc2", "decoder_conv2", "logits", "logits_of_old")
  layer = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
  params = {name: dict(layer) for name in names}
  grads = jax.tree.map(lambda x: jnp.cos(x + 1), params)
  ours = updates.STEPS["fast_head"].factory(learning_rate=0.01)
  adam = updates.adam(learning_rate=0.01)
  state, expected_state = updates.start(ours, params, frame), adam.init(params)
  for _ in range(2):
    carry, constants = ours.begin(state)
    steps, carry = ours.update(grads, carry, params, constants)
    state = ours.end(carry, constants, frame, None)
    expected, expected_state = adam.update(grads, expected_state, params)
    assert all(jnp.abs(step).max() > 0 for step in jax.tree.leaves(steps))
    expected["logits"] = jax.tree.map(lambda x: 10 * x, expected["logits"])
    close(steps, expected, 1e-6, 0)


def _torn():
  """A student whose logits are finite and whose first gradient is not."""

  def apply(params, frame):
    nothing = jnp.sqrt(jnp.sum(jnp.square(params["bias"])))
    return TINY.apply(params, frame) + nothing

  return Student(TINY.init, apply, TINY.num_classes)


@pytest.mark.parametrize("jit", [False, True])
def test_nonfinite_gradients_change_nothing_and_are_counted(jit):
  student = _torn()
  for name, num_undone in (("sgd", 1), ("nonfinite_guard", 3)):
    tx = updates.STEPS[name].factory(learning_rate=RATE)
    params, *results = layered_student.adapted(
      tx, student, jit=jit, times=(0, 1)
    )
    # Counted from the key frame's beginning, not from the run's.
    for result in results:
      assert int(result.num_updates) == 0
      assert int(result.num_rolled_back) == num_undone
      assert np.isfinite(result.grad_norm) and np.isfinite(result.loss)
      equal(result.params, params)
  _, first = layered_student.begin(tx, student)
  equal(results[0].opt_state.inner, first.inner)
  assert [int(result.opt_state.num_skipped) for result in results] == [3, 6]


INNER = (updates.adam(learning_rate=RATE), updates.averaged(SGD), REPLAY)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_guarded_step_is_as_if_the_gradient_had_not_been(inner, value):
  """Of good, bad and good gradients the second leaves no trace."""
  step, alone = updates.guarded(inner), updates.as_step(inner)
  params, state = layered_student.begin(step, TINY)
  carry, constants = step.begin(state)
  other, other_constants = alone.begin(state.inner)
  good = jax.tree.map(jnp.ones_like, params)
  bad = good | {"bias": good["bias"].at[0, 0, 0].set(value)}
  ours = theirs = params
  for grads in (good, bad, good):
    steps, carry = step.update(grads, carry, ours, constants)
    ours = optax.apply_updates(ours, steps)
    if grads is good:
      steps, other = alone.update(grads, other, theirs, other_constants)
      theirs = optax.apply_updates(theirs, steps)
  equal(ours, theirs)
  is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
  plain = lambda x: jax.random.key_data(x) if is_key(x) else x
  equal(jax.tree.map(plain, carry.inner), jax.tree.map(plain, other))
  assert int(step.num_skipped(carry)) == 1


@pytest.mark.parametrize("jit", [False, True])
def test_average_of_all_updates_of_sgd(jit):
  """Three updates are three key frames of `sgd` with one update each."""
  tx = updates.averaged(SGD, decay=0.75)
  params, result = layered_student.adapted(tx, jit=jit)
  _, *ones = layered_student.adapted(SGD, num_updates=1, times=(0, 0, 0))
  mix = lambda old, new: 0.75 * old + 0.25 * new
  expected = params
  for one in ones:
    expected = jax.tree.map(mix, expected, one.params)
  close(result.params, ones[-1].params)
  close(updates.serving_params(tx, result.params, result.opt_state), expected)


@pytest.mark.parametrize("norm", ["frame", "key_frame"])
def test_frames_between_key_frames_are_answered_by_it(norm):
  # A high rate: average and newest differ in what they say.
  tx = updates.STEPS["ema"].factory(learning_rate=0.5)
  constants = dict(stride=3, a_thresh=1.1, u_max=3, norm=norm)
  system = systems.fixed(LAYERED, tx, **constants)
  state, classes, _ = host_loop.first(system, FRAMES, layered_student.LABELS)

  def answers(params):
    if norm == "frame":
      return classify(LAYERED.apply(params, FRAMES[1]))
    _, norms = LAYERED.observe(params, FRAMES[0])
    return classify(LAYERED.apply_held(params, norms, FRAMES[1]))

  mean, newest = system.serving.params(state), state.params
  own = classify(LAYERED.apply(newest, FRAMES[0]))
  assert np.mean(classes == own) > 0.99  # the key frame: by the newest
  _, classes = system.predict(state, FRAMES[1])
  assert np.mean(classes == answers(mean)) > 0.99
  assert np.mean(answers(newest) == answers(mean)) < 0.95


def test_of_a_part_the_others_are_the_students_own():
  tx = updates.averaged(updates.STEPS["head"].factory(learning_rate=RATE))
  params, result = layered_student.adapted(tx)
  mean = updates.serving_params(tx, result.params, result.opt_state)
  close(mean["conv1"], params["conv1"])
  head = [x["logits"]["kernel"] for x in (params, mean, result.params)]
  assert np.abs(head[0] - head[1]).max() > 0
  assert np.abs(head[2] - head[1]).max() > 0


def test_without_a_past_the_gradient_stays_bit_for_bit():
  params, opt_state = layered_student.begin(REPLAY, TINY)
  carry, constants = REPLAY.begin(opt_state)
  broken = lambda frame, labels: jax.tree.map(lambda x: x * np.nan, params)
  for gradient in (REPLAY.gradient, jax.jit(REPLAY.gradient, static_argnums=1)):
    equal(gradient(params, broken, carry, constants), params)


def test_later_ones_descend_the_mean_of_two_losses():
  tx = updates.with_replay(SGD, 1)
  _, first, second = layered_student.adapted(tx, TINY, times=(0, 1))

  def loss(params):
    logits = [TINY.apply(params, FRAMES[t]) for t in (0, 1)]
    labels = map(layered_student.labels_of, (0, 1))
    return sum(map(losses.weighted_cross_entropy, logits, labels)) / 2

  params, state = first.params, first.opt_state.inner
  for _ in range(3):
    steps, state = SGD.update(jax.grad(loss)(params), state)
    params = optax.apply_updates(params, steps)
  close(second.params, params)


def _remembering(tx, times):
  """The state of a step that was through some frames; nothing is learnt."""
  _, state = layered_student.begin(tx, TINY)
  for t in times:
    carry, constants = tx.begin(state)
    state = tx.end(carry, constants, FRAMES[t], layered_student.labels_of(t))
  return state


def test_ring_holds_the_last_ones_whole():
  tx = updates.with_replay(SGD, 2)
  buffer = _remembering(tx, [0, 1, 2]).buffer
  for slot, t in enumerate((2, 1)):
    labels = layered_student.labels_of(t)
    equal(tuple(x[slot] for x in buffer), (FRAMES[t], *labels))
  assert (
    sum(x.nbytes for x in buffer) == 2 * (3 + 1 + 2) * FRAMES[0, ..., 0].size
  )
  # A frame without labels is not kept.
  state = _remembering(REPLAY, [0])
  nothing = Labels(*(0 * x for x in layered_student.labels_of(1)))
  after = REPLAY.end(*REPLAY.begin(state), FRAMES[1], nothing)
  assert int(after.num_seen) == 1
  equal(after.buffer, state.buffer)


@pytest.mark.parametrize("times", [[1], [0, 2], [3, 2, 1, 0, 3, 1]])
def test_each_kept_one_is_drawn_about_as_often(times):
  params, _ = layered_student.begin(REPLAY, TINY)
  carry, constants = REPLAY.begin(_remembering(REPLAY, times))
  zeros = jax.tree.map(jnp.zeros_like, params)
  kinds = [float(x.mean()) for x in FRAMES.astype(np.float32)]

  def grad_fn(frame, labels):
    del labels
    mean = jnp.mean(frame.astype(jnp.float32))
    return jax.tree.map(lambda x: jnp.full_like(x, mean), params)

  def turn(carry, _):
    grads = REPLAY.gradient(zeros, grad_fn, carry, constants)
    _, carry = REPLAY.update(grads, carry, params, constants)
    return carry, 2 * jnp.max(grads["bias"])

  _, drawn = jax.lax.scan(turn, carry, length=400)
  near = np.abs(np.asarray(drawn)[:, None] - kinds)
  assert near.min(1).max() < 1e-3
  counts = np.bincount(near.argmin(1), minlength=4)
  kept = times[-4:]
  for t in range(4):
    expected = 400 * kept.count(t) / len(kept)
    assert abs(counts[t] - expected) < 60 * (expected > 0) + 1

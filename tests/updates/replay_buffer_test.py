"""Key frames of the past beside the new one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ojd import losses, updates
from ojd.types import Labels
from tests.reference import layered_student, tiny_student

STUDENT = tiny_student.make()
RATE = 0.1
FRAMES = layered_student.FRAMES


def _equal(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def _close(ours, theirs):
  """But for the rounding of programs that were compiled apart."""
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
    ours,
    theirs,
  )


@pytest.mark.parametrize("jit", [False, True])
def test_first_key_frame_is_that_of_sgd(jit):
  results = []
  for tx in (
    updates.STEPS["replay"].factory(learning_rate=RATE),
    updates.sgd(learning_rate=RATE),
  ):
    learn = layered_student.adapting(tx, STUDENT, jit=jit)
    results.append(learn(*layered_student.begin(tx, STUDENT), 0))
  assert int(results[0].num_updates) == 3
  _close(results[0].params, results[1].params)
  _close(results[0].opt_state.inner, results[1].opt_state)


def test_without_a_past_the_gradient_stays_bit_for_bit():
  tx = updates.STEPS["replay"].factory(learning_rate=RATE)
  params, opt_state = layered_student.begin(tx, STUDENT)
  carry, constants = tx.begin(opt_state)
  broken = lambda frame, labels: jax.tree.map(lambda x: x * np.nan, params)
  for gradient in (tx.gradient, jax.jit(tx.gradient, static_argnums=1)):
    _equal(gradient(params, broken, carry, constants), params)


def test_later_ones_descend_the_mean_of_two_losses():
  tx, sgd = (
    updates.with_replay(updates.sgd(learning_rate=RATE), 1),
    updates.sgd(learning_rate=RATE),
  )
  params, opt_state = layered_student.begin(tx, STUDENT)
  learn = layered_student.adapting(tx, STUDENT)
  first = learn(params, opt_state, 0)
  second = learn(first.params, first.opt_state, 1)

  def loss(params):
    return sum(
      losses.weighted_cross_entropy(
        STUDENT.apply(params, FRAMES[t]), layered_student.labels_of(t)
      )
      / 2
      for t in (0, 1)
    )

  params, state = first.params, first.opt_state.inner
  for _ in range(3):
    steps, state = sgd.update(jax.grad(loss)(params), state)
    params = optax.apply_updates(params, steps)
  _close(second.params, params)


def _remembering(tx, times):
  """The state of a step that was through some frames; nothing is learnt."""
  _, state = layered_student.begin(tx, STUDENT)
  for t in times:
    carry, constants = tx.begin(state)
    state = tx.end(carry, constants, FRAMES[t], layered_student.labels_of(t))
  return state


def test_ring_holds_the_last_ones_whole():
  tx = updates.with_replay(updates.sgd(learning_rate=RATE), 2)
  buffer = _remembering(tx, [0, 1, 2]).buffer
  for slot, t in enumerate((2, 1)):
    labels = layered_student.labels_of(t)
    np.testing.assert_array_equal(buffer.frames[slot], FRAMES[t])
    np.testing.assert_array_equal(buffer.classes[slot], labels.classes)
    np.testing.assert_array_equal(buffer.weights[slot], labels.weights)
  height, width = FRAMES.shape[1:3]
  assert sum(x.nbytes for x in buffer) == 6 * 2 * height * width


@pytest.mark.parametrize("times", [[1], [0, 2], [3, 2, 1, 0, 3, 1]])
def test_each_kept_one_is_drawn_about_as_often(times):
  tx = updates.STEPS["replay"].factory(learning_rate=RATE)
  params, _ = layered_student.begin(tx, STUDENT)
  carry, constants = tx.begin(_remembering(tx, times))
  zeros = jax.tree.map(jnp.zeros_like, params)
  kinds = [float(x.mean()) for x in FRAMES.astype(np.float32)]

  def grad_fn(frame, labels):
    del labels
    mean = jnp.mean(frame.astype(jnp.float32))
    return jax.tree.map(lambda x: jnp.full_like(x, mean), params)

  def turn(carry, _):
    grads = tx.gradient(zeros, grad_fn, carry, constants)
    _, carry = tx.update(grads, carry, params, constants)
    return carry, 2 * jnp.max(grads["bias"])

  _, drawn = jax.lax.scan(turn, carry, length=400)
  near = np.abs(np.asarray(drawn)[:, None] - kinds)
  assert near.min(1).max() < 1e-3
  counts = np.bincount(near.argmin(1), minlength=4)
  kept = times[-4:]
  for t in range(4):
    expected = 400 * kept.count(t) / len(kept)
    assert abs(counts[t] - expected) < 60 * (expected > 0) + 1


def test_frame_without_labels_is_not_kept():
  tx = updates.STEPS["replay"].factory(learning_rate=RATE)
  state = _remembering(tx, [0])
  nothing = Labels(*(0 * x for x in layered_student.labels_of(1)))
  after = tx.end(*tx.begin(state), FRAMES[1], nothing)
  assert int(after.num_seen) == 1
  _equal(after.buffer, state.buffer)

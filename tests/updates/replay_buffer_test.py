"""Key frames of the past beside the new one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ojd import losses, updates
from ojd.types import Labels
from tests.reference import layered_student, tiny_student
from tests.reference.compare import close, equal

STUDENT = tiny_student.make()
RATE = 0.1
FRAMES = layered_student.FRAMES
REPLAY = updates.STEPS["replay"].factory(learning_rate=RATE)


def test_without_a_past_the_gradient_stays_bit_for_bit():
  params, opt_state = layered_student.begin(REPLAY, STUDENT)
  carry, constants = REPLAY.begin(opt_state)
  broken = lambda frame, labels: jax.tree.map(lambda x: x * np.nan, params)
  for gradient in (REPLAY.gradient, jax.jit(REPLAY.gradient, static_argnums=1)):
    equal(gradient(params, broken, carry, constants), params)


def test_later_ones_descend_the_mean_of_two_losses():
  sgd = updates.sgd(learning_rate=RATE)
  tx = updates.with_replay(sgd, 1)
  _, first, second = layered_student.adapted(tx, STUDENT, times=(0, 1))

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
  close(second.params, params)


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
    equal(tuple(x[slot] for x in buffer), (FRAMES[t], *labels))
  assert (
    sum(x.nbytes for x in buffer) == 2 * (3 + 1 + 2) * FRAMES[0, ..., 0].size
  )


@pytest.mark.parametrize("times", [[1], [0, 2], [3, 2, 1, 0, 3, 1]])
def test_each_kept_one_is_drawn_about_as_often(times):
  params, _ = layered_student.begin(REPLAY, STUDENT)
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


def test_frame_without_labels_is_not_kept():
  state = _remembering(REPLAY, [0])
  nothing = Labels(*(0 * x for x in layered_student.labels_of(1)))
  after = REPLAY.end(*REPLAY.begin(state), FRAMES[1], nothing)
  assert int(after.num_seen) == 1
  equal(after.buffer, state.buffer)

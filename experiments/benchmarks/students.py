"""Students and updates that several entries measure."""

import jax
import numpy as np
import optax

from experiments.benchmarks.measure import Setting
from ojd import losses
from ojd.models.student import create
from ojd.types import Labels

NUM_CLASSES = 9


def inputs(at: Setting, model="jitnet"):
  """A student of nine classes, its parameters, a frame and its labels."""
  student = create(model, NUM_CLASSES, precision=at.precision)
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (*at.size, 3)).astype(np.uint8)
  classes = rng.integers(0, NUM_CLASSES, at.size).astype(np.uint8)
  labels = Labels(classes, np.ones(at.size, np.float32))
  params = jax.jit(student.init)(jax.random.key(0), frame)
  return student, params, *jax.device_put((frame, labels))


def forward(at: Setting):
  """A call without arguments: the student's forward pass."""
  student, params, frame, _ = inputs(at)
  apply = jax.jit(student.apply)
  return lambda: apply(params, frame)


def single_update(student, tx, frame, labels):
  """One step outside of any loop: (params, opt_state) -> the same."""

  def step(params, opt_state):
    loss_fn = lambda p: losses.weighted_cross_entropy(
      student.apply(p, frame), labels
    )
    grads = jax.grad(loss_fn)(params)
    steps, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, steps), opt_state

  return jax.jit(step)

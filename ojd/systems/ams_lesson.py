"""A lesson of Adaptive Model Streaming: updates on batches from a memory.

What a lesson moved travels as float16, and is left as it then is.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ojd import updates
from ojd.models.student import Params, Student
from ojd.types import Frame, Labels, Task
from ojd.updates import partition, replay_buffer
from ojd.updates.replay_buffer import ReplayBuffer
from ojd.updates.step import Carry, Tx
from ojd.updates.step import State as StepState


class Samples(NamedTuple):
  """What a lesson is about: the newest of a ring."""

  memory: ReplayBuffer  # of N frames
  newest: jax.Array  # int32, the index of the newest
  count: jax.Array  # int32, how many, 1 to N


class Taught(NamedTuple):
  """The student after a lesson."""

  params: Params
  opt_state: StepState
  num_updates: jax.Array  # int32
  num_refused: jax.Array  # int32, updates that were not finite
  grad_norm: jax.Array  # float32, of the last update


class _Turn(NamedTuple):
  """Carry of the loop; of the parameters those that train."""

  params: Params
  step_carry: Carry
  key: jax.Array
  num_updates: jax.Array
  num_refused: jax.Array
  grad_norm: jax.Array


def teach(
  student: Student,
  task: Task,
  tx: Tx,
  params: Params,
  opt_state: StepState,
  samples: Samples,
  key: jax.Array,
  newest: tuple[Frame, Labels],
  *,
  iterations: int,
  batch_size: int,
) -> Taught:
  """Updates on batches drawn with replacement; the key is consumed.

  Args:
    student: init and apply of one frame.
    task: what labels are.
    tx: the gradient step.
    params: the student's parameters.
    opt_state: of `tx`, first of `updates.start`.
    samples: to be drawn from.
    key: a typed random key.
    newest: of the samples, for a step that remembers on its own.
    iterations: updates.
    batch_size: samples an update looks at.
  """
  step = updates.as_step(tx)
  trained, others = partition.split(params, step.trains)
  step_carry, constants = step.begin(opt_state)

  def loss_of(trained, frame, labels):
    output = student.apply(partition.merge(trained, others), frame)
    return task.loss(output, labels)

  def turn(_, carry):
    key, sub = jax.random.split(carry.key)
    ages = jax.random.randint(sub, (batch_size,), 0, samples.count)

    def add(i, grads):
      sample = _sample(samples, ages[i])
      more = jax.grad(loss_of)(carry.params, *sample)
      return jax.tree.map(jnp.add, grads, more)

    # One after the other: all at once take the memory of all.
    grads = jax.tree.map(jnp.zeros_like, carry.params)
    grads = lax.fori_loop(0, batch_size, add, grads)
    grads = jax.tree.map(lambda g: g / batch_size, grads)
    grad_fn = functools.partial(jax.grad(loss_of), carry.params)
    grads = step.gradient(grads, grad_fn, carry.step_carry, constants)
    steps, moved = step.update(grads, carry.step_carry, carry.params, constants)
    norm = optax.tree.norm(grads)
    made = carry._replace(
      params=optax.apply_updates(carry.params, steps),
      step_carry=moved,
      key=key,
      num_updates=carry.num_updates + 1,
      grad_norm=norm,
    )
    refused = carry._replace(key=key, num_refused=carry.num_refused + 1)
    pick = functools.partial(jnp.where, jnp.isfinite(norm))
    return jax.tree.map(pick, made, refused)

  none, zero = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32)
  carry = _Turn(trained, step_carry, key, none, none, zero)
  carry = lax.fori_loop(0, iterations, turn, carry)
  num_skipped = step.num_skipped(carry.step_carry) - step.num_skipped(
    step_carry
  )
  return Taught(
    _rounded(partition.merge(carry.params, others), params),
    step.end(carry.step_carry, constants, *newest),
    num_updates=carry.num_updates - num_skipped,
    num_refused=carry.num_refused + num_skipped,
    grad_norm=carry.grad_norm,
  )


def _sample(samples, age):
  capacity = len(samples.memory.frames)
  return replay_buffer.get(samples.memory, (samples.newest - age) % capacity)


def _rounded(params, before):
  """What moved as it travels; the rest, which does not, as it was."""
  return jax.tree.map(
    lambda new, old: jnp.where(new != old, as_sent(new), new), params, before
  )


def as_sent(values: jax.Array) -> jax.Array:
  """Float32 values as float16 has them; those without room there stay."""
  rounded = values.astype(jnp.float16).astype(jnp.float32)
  return jnp.where(jnp.isfinite(rounded), rounded, values)

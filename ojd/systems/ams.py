"""Adaptive Model Streaming: training on the labelled frames of some minutes.

A device samples its stream sparsely; a server labels those frames, keeps them
for some minutes, and every few seconds trains the student on batches of them.
The changes of a training round are sent as float16, and the server continues
with the rounded values, as the device does. Both rates follow the labels: slow
scenes are sampled and trained on less often.
"""

import functools
import math
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ojd import distill, schedules, updates
from ojd.errors import UserError
from ojd.models.student import Params, Student
from ojd.specs import Range
from ojd.systems.jit import look, serve_fn
from ojd.tasks import segmentation
from ojd.types import Frame, Labels, StepInfo, Task
from ojd.updates import partition, replay_buffer
from ojd.updates.replay_buffer import ReplayBuffer
from ojd.updates.step import Carry, Tx
from ojd.updates.step import State as StepState

# The only training round of `one_time`: after so many periods, a minute of ten
# seconds each, and so many times as long.
_ONE_TIME = 6
_ONE_ROUND = 10
_MAX_MEMORY = 8 << 30  # bytes of samples


class _Timing(NamedTuple):
  """When there are samples and training rounds; the options of `ams`."""

  fps: float
  sampling_rate: float
  train_period: float
  adaptive_sampling: bool
  adaptive_training: bool
  one_time: bool


class AmsState(NamedTuple):
  """State of `ams`."""

  params: Params
  opt_state: StepState
  memory: replay_buffer.ReplayBuffer
  times: jax.Array  # [N] int32, the frames in memory
  num_seen: jax.Array  # int32, samples so far
  key: jax.Array  # a typed random key, of the batches
  rate: jax.Array  # float32, samples a second
  training: schedules.TrainingState
  similarity: jax.Array  # float32, sum over the samples since the last round
  num_pairs: jax.Array  # int32, of that sum
  num_rounds: jax.Array  # int32
  round_t: jax.Array  # int32, the frame of the last round
  due: jax.Array  # int32, the next sample
  t: jax.Array  # int32, the frame that comes next


def ams(
  student: Student,
  tx: Tx,
  *,
  fps: float,
  num_frames: int | None,
  task: Task | None = None,
  sampling_rate: Annotated[float, Range(0.001, 1e3)] = 1.0,
  train_period: Annotated[float, Range(0.001, 1e6)] = 10.0,
  horizon: Annotated[float, Range(0.001, 1e6)] = 240.0,
  iterations: Annotated[int, Range(1, 10**6)] = 20,
  batch_size: Annotated[int, Range(1, 10**6)] = 8,
  adaptive_sampling: bool = True,
  adaptive_training: bool = False,
  one_time: bool = False,
) -> distill.System:
  """AMS: training rounds every few seconds on the samples of some minutes.

  Adaptive Model Streaming (Khani et al., "Real-Time Video Inference on Edge
  Devices via Adaptive Model Streaming", ICCV 2021), server and device in one.

  Args:
    tx: the gradient step; `updates.top_k` is the paper's.
    fps: frames a second of the stream.
    num_frames: of the stream, where it is known: no more is remembered.
    task: what labels are; None: segmentation over the student's classes.
    sampling_rate: frames a second that the teacher sees, the most where the
      rate adapts.
    train_period: seconds from one training round to the next, the least where
      the period adapts.
    horizon: seconds after which a sample is forgotten; six bytes a pixel of
      every sample are kept.
    iterations: updates of a training round.
    batch_size: samples an update looks at, drawn with replacement.
    adaptive_sampling: whether the sampling rate follows the labels (ASR).
    adaptive_training: whether the period follows the sampling rate (ATR).
    one_time: whether there is one long training round, and none after it.
  """
  task = task or segmentation(student.num_classes)
  timing = _Timing(
    *(fps, sampling_rate, train_period),
    *(adaptive_sampling, adaptive_training, one_time),
  )
  if num_frames is not None:
    horizon = min(horizon, num_frames / fps)
  # There is one sample a frame at most.
  rate = min(sampling_rate, fps)
  capacity = math.ceil(horizon * rate) + 1
  num_turns = iterations * (_ONE_ROUND if one_time else 1)

  def init(rng_key, frame):
    """The key is consumed."""
    num_bytes = (
      capacity * math.prod(frame.shape[:2]) * replay_buffer.BYTES_PER_PIXEL
    )
    if num_bytes > _MAX_MEMORY:
      raise UserError(
        f"ams:horizon={horizon:g}: {capacity} samples of "
        f"{frame.shape[0]}x{frame.shape[1]} pixels are more than "
        f"{_MAX_MEMORY >> 30} GB"
      )
    params = student.init(rng_key, frame)
    none, zero = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32)
    return AmsState(
      params=params,
      opt_state=updates.start(tx, params, frame),
      memory=replay_buffer.empty_buffer(capacity, frame),
      times=jnp.zeros(capacity, jnp.int32),
      num_seen=none,
      key=jax.random.fold_in(rng_key, 1),
      rate=jnp.asarray(sampling_rate, jnp.float32),
      training=schedules.training_period(train_period),
      similarity=zero,
      num_pairs=none,
      num_rounds=none,
      round_t=none,
      due=none,
      t=none,
    )

  def learn(state, frame, labels):
    before = look(student, task, state.params, frame, labels)
    state = _remember(state, frame, labels, task)
    is_due = _is_round_due(state, timing)
    none, zero = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32)

    def train():
      newest = (state.num_seen - 1) % capacity
      count = _num_within(state, round(horizon * fps))
      after_round = train_round(
        *(student, task, tx, state.params, state.opt_state),
        Samples(state.memory, newest, count),
        # Every round has a random key of its own.
        jax.random.fold_in(state.key, state.num_rounds),
        (frame, labels),
        iterations=num_turns,
        batch_size=batch_size,
      )
      params, opt_state, *counts = after_round
      after = look(student, task, params, frame, labels)
      num_lost = after_round.num_updates + after_round.num_refused
      # A round that diverges is undone.
      return jax.tree.map(
        functools.partial(jnp.where, jnp.isfinite(after.loss)),
        (params, opt_state, after, tuple(counts)),
        (state.params, state.opt_state, before, (none, num_lost, zero)),
      )

    params, opt_state, after, (num_updates, num_refused, norm) = lax.cond(
      is_due,
      train,
      lambda: (state.params, state.opt_state, before, (none, none, zero)),
    )
    state = _rated(state, timing, is_due)
    interval = jnp.round(fps / state.rate).astype(jnp.int32)
    interval = jnp.maximum(interval, 1)
    state = state._replace(
      params=params,
      opt_state=opt_state,
      due=state.t + interval,
      t=state.t + 1,
    )
    info = StepInfo(
      is_key=jnp.ones((), bool),
      stride=interval,
      num_updates=num_updates,
      num_rolled_back=num_refused,
      miou_before=before.miou,
      miou_after=after.miou,
      loss=after.loss,
      grad_norm=norm,
    )
    return state, after.answer, info

  serving = distill.Serving(
    lambda state: updates.serving_params(tx, state.params, state.opt_state),
    serve_fn(student, task),
  )

  def predict(state, frame):
    answer = serving.predict(serving.params(state), frame)
    return state._replace(t=state.t + 1), answer

  next_key = lambda state: jnp.maximum(state.due, state.t)
  return distill.System(init, next_key, learn, predict, serving)


def _remember(state, frame, labels, task):
  """The sample in memory, and how much it looks like the one before."""
  capacity = len(state.times)
  _, last = replay_buffer.get(state.memory, (state.num_seen - 1) % capacity)
  similarity = task.similarity(last, labels)
  is_pair = state.num_seen > 0
  index = state.num_seen % capacity
  return state._replace(
    memory=replay_buffer.put(state.memory, frame, labels, index),
    times=state.times.at[index].set(state.t),
    num_seen=state.num_seen + 1,
    similarity=state.similarity + jnp.where(is_pair, similarity, 0),
    num_pairs=state.num_pairs + is_pair.astype(jnp.int32),
  )


def _is_round_due(state, timing):
  """Whether a period has passed since the last round."""
  period = state.training.period * (_ONE_TIME if timing.one_time else 1)
  is_due = state.t - state.round_t >= jnp.round(period * timing.fps)
  return is_due & (state.num_rounds == 0) if timing.one_time else is_due


def _num_within(state, num_frames):
  """Samples in memory that are no older than so many frames."""
  capacity = len(state.times)
  is_there = jnp.arange(capacity) < state.num_seen
  return jnp.sum(is_there & (state.t - state.times <= num_frames))


def _rated(state, timing, is_due):
  """Adapts the rates to the labels since the last round."""
  rate, training = state.rate, state.training
  if timing.adaptive_sampling:
    similarity = state.similarity / jnp.maximum(state.num_pairs, 1)
    greatest = timing.sampling_rate
    moved = schedules.sampling_rate(rate, similarity, greatest)
    rate = jnp.where(state.num_pairs > 0, moved, rate)
  if timing.adaptive_training:
    training = schedules.advance_training(
      training, rate, timing.train_period, timing.sampling_rate
    )
  after = dict(
    rate=rate,
    training=training,
    similarity=jnp.zeros((), jnp.float32),
    num_pairs=jnp.zeros((), jnp.int32),
    num_rounds=state.num_rounds + 1,
    round_t=state.t,
  )
  before = {name: getattr(state, name) for name in after}
  pick = functools.partial(jnp.where, is_due)
  return state._replace(**jax.tree.map(pick, after, before))


class Samples(NamedTuple):
  """The samples of a round: the newest of a ring buffer."""

  memory: ReplayBuffer  # of N frames
  newest: jax.Array  # int32, the index of the newest
  count: jax.Array  # int32, how many, 1 to N


class Trained(NamedTuple):
  """The student after a training round."""

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


def train_round(
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
) -> Trained:
  """Updates on batches drawn with replacement; the key is consumed.

  Args:
    task: what labels are.
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
  return Trained(
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
  """The parameters with the moved ones rounded as they are sent."""
  return jax.tree.map(
    lambda new, old: jnp.where(new != old, as_sent(new), new), params, before
  )


def as_sent(values: jax.Array) -> jax.Array:
  """Float32 values rounded to float16; values out of its range stay."""
  rounded = values.astype(jnp.float16).astype(jnp.float32)
  return jnp.where(jnp.isfinite(rounded), rounded, values)

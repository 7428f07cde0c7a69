"""Adaptive Model Streaming: lessons on the labelled frames of the last minutes.

A device samples its stream sparsely; a server labels those frames, keeps them
for some minutes, and every few seconds gives the student a lesson on batches of
them. What a lesson moved is sent as float16, and the server goes on with what
the device then holds. Both rates follow the labels: slow scenes are sampled and
taught less often.
"""

import functools
import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ojd import distill, schedules, updates
from ojd.errors import UserError
from ojd.models.student import Params, Student
from ojd.specs import Range
from ojd.systems import ams_lesson
from ojd.systems.jit import serve_fn
from ojd.tasks import segmentation
from ojd.types import StepInfo, Task
from ojd.updates import replay_buffer
from ojd.updates.step import State as StepState
from ojd.updates.step import Tx

# The only lesson, where there is one alone: after so many periods, a minute of
# ten seconds each, and so many times as long.
_ONE_TIME = 6
_ONE_LESSON = 10
_MAX_MEMORY = 8 << 30  # bytes of samples


class _Timing(NamedTuple):
  """When there are samples and training rounds; as of `ams`."""

  fps: float
  sampling_rate: float
  train_period: float
  horizon: float
  is_sampling_adaptive: bool
  is_training_adaptive: bool
  is_one_time: bool


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
  similarity: jax.Array  # float32, sum over the samples since the last lesson
  num_pairs: jax.Array  # int32, of that sum
  num_lessons: jax.Array  # int32
  lesson_t: jax.Array  # int32, the frame of the last lesson
  due: jax.Array  # int32, the next sample
  t: jax.Array  # int32, the frame that comes next


class _Look(NamedTuple):
  """What a student makes of a sample."""

  answer: Any
  miou: jax.Array  # float32
  loss: jax.Array  # float32


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
    student: init and apply of one frame.
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
    fps,
    sampling_rate,
    train_period,
    horizon if num_frames is None else min(horizon, num_frames / fps),
    adaptive_sampling,
    adaptive_training,
    one_time,
  )
  # There is one sample a frame at most.
  rate = min(sampling_rate, fps)
  capacity = math.ceil(timing.horizon * rate) + 1
  num_turns = iterations * (_ONE_LESSON if one_time else 1)

  def init(rng_key, frame):
    """The key is consumed."""
    num_bytes = (
      capacity * math.prod(frame.shape[:2]) * replay_buffer.BYTES_PER_PIXEL
    )
    if num_bytes > _MAX_MEMORY:
      raise UserError(
        f"ams:horizon={timing.horizon:g}: {capacity} samples of "
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
      rate=jnp.asarray(timing.sampling_rate, jnp.float32),
      training=schedules.training_period(timing.train_period),
      similarity=zero,
      num_pairs=none,
      num_lessons=none,
      lesson_t=none,
      due=none,
      t=none,
    )

  def learn(state, frame, labels):
    before = _look(student, task, state.params, frame, labels)
    state = _remember(state, frame, labels, task)
    is_due = _is_lesson_due(state, timing)
    none, zero = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32)

    def teach():
      newest = (state.num_seen - 1) % capacity
      count = _num_within(state, round(timing.horizon * timing.fps))
      taught = ams_lesson.teach(
        *(student, task, tx, state.params, state.opt_state),
        ams_lesson.Samples(state.memory, newest, count),
        # A randomness of its own for every lesson.
        jax.random.fold_in(state.key, state.num_lessons),
        (frame, labels),
        iterations=num_turns,
        batch_size=batch_size,
      )
      params, opt_state, *counts = taught
      after = _look(student, task, params, frame, labels)
      num_lost = taught.num_updates + taught.num_refused
      # A lesson that led nowhere is undone.
      return jax.tree.map(
        functools.partial(jnp.where, jnp.isfinite(after.loss)),
        (params, opt_state, after, tuple(counts)),
        (state.params, state.opt_state, before, (none, num_lost, zero)),
      )

    params, opt_state, after, (num_updates, num_refused, norm) = lax.cond(
      is_due,
      teach,
      lambda: (state.params, state.opt_state, before, (none, none, zero)),
    )
    state = _rated(state, timing, is_due)
    interval = jnp.round(timing.fps / state.rate).astype(jnp.int32)
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


def _look(student, task, params, frame, labels) -> _Look:
  output = student.apply(params, frame)
  answer = task.decode(output)
  accuracy = task.accuracy(labels, answer)
  return _Look(answer, accuracy, task.loss(output, labels))


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


def _is_lesson_due(state, timing):
  """Whether a period has passed since the last lesson."""
  period = state.training.period * (_ONE_TIME if timing.is_one_time else 1)
  is_due = state.t - state.lesson_t >= jnp.round(period * timing.fps)
  return is_due & (state.num_lessons == 0) if timing.is_one_time else is_due


def _num_within(state, num_frames):
  """Samples in memory that are no older than so many frames."""
  capacity = len(state.times)
  is_there = jnp.arange(capacity) < state.num_seen
  return jnp.sum(is_there & (state.t - state.times <= num_frames))


def _rated(state, timing, is_due):
  """After a lesson the rates are what the labels since the last one say."""
  rate, training = state.rate, state.training
  if timing.is_sampling_adaptive:
    similarity = state.similarity / jnp.maximum(state.num_pairs, 1)
    greatest = timing.sampling_rate
    moved = schedules.sampling_rate(rate, similarity, greatest)
    rate = jnp.where(state.num_pairs > 0, moved, rate)
  if timing.is_training_adaptive:
    training = schedules.advance_training(
      training, rate, timing.train_period, timing.sampling_rate
    )
  after = dict(
    rate=rate,
    training=training,
    similarity=jnp.zeros((), jnp.float32),
    num_pairs=jnp.zeros((), jnp.int32),
    num_lessons=state.num_lessons + 1,
    lesson_t=state.t,
  )
  before = {name: getattr(state, name) for name in after}
  pick = functools.partial(jnp.where, is_due)
  return state._replace(**jax.tree.map(pick, after, before))

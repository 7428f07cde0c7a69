"""A student that learns, and the last labels carried along by optical flow.

The flow is good where things only move, and useless where they appear or turn
around. Every key frame shows, before the student learns from it, which classes
the flow confuses. Until the next key frame a pixel gets the likeliest class by
both: the carried label decides where the student is unsure, and the student
decides where the flow has erred before.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ojd import distill
from ojd.models import optical_flow
from ojd.models.student import Student
from ojd.specs import extends
from ojd.systems.jit import JitState, forward, jit, jit_plus
from ojd.tasks import segmentation
from ojd.types import IGNORE
from ojd.updates.step import Tx

# Of what was seen of the flow's errors before, the share that a key frame
# leaves.
_MEMORY = 0.5
# Pixels of each class carried rightly and wrongly, before any were seen.
_RIGHT, _WRONG = 9.0, 1.0
_LEAST_SHARE = 1e-3  # nothing that was never seen is impossible


class Carried(NamedTuple):
  """The last labels, and where the pixels of this frame were on theirs."""

  frame: jax.Array  # [H, W, 3] uint8, the one before
  labels: jax.Array  # [H, W] uint8, of the last key frame
  place: jax.Array  # [H, W, 2] float32, x before y
  age: jax.Array  # int32, frames since


class JitFlowState(NamedTuple):
  """State of `jit_flow`."""

  student: JitState
  carried: Carried
  seen: jax.Array  # [C, C] float32, pixels by the teacher's and carried class
  reach: jax.Array  # int32, the age at which they were seen last


@extends(jit)
def jit_flow(
  student: Student,
  tx: Tx,
  *,
  base: Literal["jit", "jit_plus"] = "jit",
  flow: str | optical_flow.HostFlow = optical_flow.DEFAULT,
  **options: Any,
) -> distill.System:
  """Where jit's student is unsure, the last labels carried by optical flow.

  Args:
    base: the method that learns on key frames.
    flow: dis:ultrafast, dis:fast, dis:medium or raft:FILE.
    **options: those of the base.
  """
  base = {"jit": jit, "jit_plus": jit_plus}[base](student, tx, **options)
  return with_flow(student, tx, base, optical_flow.as_flow(flow))


def with_flow(
  student: Student,
  tx: Tx,
  base: distill.System,
  flow_fn: optical_flow.HostFlow,
) -> distill.System:
  """`base` on key frames; between them its student and the flow together.

  Args:
    student: that of the base.
    tx: that of the base.
    base: of `jit.scheduled`.
    flow_fn: of `optical_flow`.
  """
  num_classes = student.num_classes
  task = segmentation(num_classes)

  def init(rng_key, frame):
    unknown = jnp.full(frame.shape[:2], IGNORE, jnp.uint8)
    return JitFlowState(
      student=base.init(rng_key, frame),
      carried=_begin(jnp.zeros(frame.shape, jnp.uint8), unknown),
      seen=jnp.zeros((num_classes, num_classes), jnp.float32),
      reach=jnp.zeros((), jnp.int32),
    )

  def next_key(state):
    return base.next_key(state.student)

  def learn(state, frame, labels):
    carried = _carry(state.carried, frame, flow_fn)
    seen = _count(labels, _labels_now(carried), num_classes)
    learned, classes, info = base.learn(state.student, frame, labels)
    known = jnp.where(labels.weights > 0, labels.classes, IGNORE)
    state = JitFlowState(
      student=learned,
      carried=_begin(frame, known),
      seen=_MEMORY * state.seen + seen,
      reach=carried.age,
    )
    return state, classes, info

  def predict(state, frame):
    carried = _carry(state.carried, frame, flow_fn)
    logits = forward(student, tx, state.student, frame)
    table = _likelihoods(state.seen, carried.age, state.reach)
    believed = jax.nn.log_softmax(logits) + table[_labels_now(carried)]
    after = state.student._replace(t=state.student.t + 1)
    state = state._replace(student=after, carried=carried)
    return state, task.decode(believed)

  def skip(state, num):
    return state._replace(student=base.serving.skip(state.student, num))

  serving = distill.Serving(
    lambda state: base.serving.params(state.student), skip=skip
  )
  return distill.System(init, next_key, learn, predict, serving)


def _begin(frame, labels):
  age = jnp.zeros((), jnp.int32)
  return Carried(jnp.asarray(frame), labels, _own_places(*labels.shape), age)


def _own_places(height, width):
  rows, columns = jnp.mgrid[:height, :width]
  return jnp.stack([columns, rows], -1).astype(jnp.float32)


def _carry(carried, frame, flow_fn):
  """One frame further: where its pixels were, by where those were."""
  motion = optical_flow.dense_flow(frame, carried.frame, flow_fn)
  before = _own_places(*frame.shape[:2]) + motion
  # Read at the nearest pixel and moved by the rest: a mean of neighbours would
  # put the rims of objects between them and what is behind them.
  place = carried.place[_inside(before)] + (before - jnp.round(before))
  return Carried(jnp.asarray(frame), carried.labels, place, carried.age + 1)


def _inside(places):
  """The nearest pixels, (rows, columns); beyond the frame those of its edge."""
  height, width, _ = places.shape
  x, y = jnp.moveaxis(jnp.round(places), -1, 0)
  rows = jnp.clip(y, 0, height - 1).astype(jnp.int32)
  return rows, jnp.clip(x, 0, width - 1).astype(jnp.int32)


def _labels_now(carried):
  """The labels where they are now, [H, W]; IGNORE where there is none."""
  return carried.labels[_inside(carried.place)]


def _count(labels, carried, num_classes):
  """Pixels by the teacher's class and the carried one, [C, C] float32."""
  counts = (labels.weights > 0) & (carried != IGNORE)
  teacher = jnp.where(counts, labels.classes, num_classes)
  theirs = jax.nn.one_hot(teacher.ravel(), num_classes)
  return theirs.T @ jax.nn.one_hot(carried.ravel(), num_classes)


def _likelihoods(seen, age, reach):
  """Logarithms of the shares of each class carried as label i, [256, C]."""
  num_classes = len(seen)
  eye = jnp.eye(num_classes)
  counts = seen + _RIGHT * eye + _WRONG * (1 - eye) / max(1, num_classes - 1)
  shares = counts / counts.sum(1, keepdims=True)
  # Errors add up from frame to frame, until there are as many as were seen.
  part = jnp.minimum(1, age / jnp.maximum(1, reach))
  shares = part * shares + (1 - part) * eye
  table = jnp.log(jnp.maximum(shares, _LEAST_SHARE)).T
  # The label that says nothing, and those that are none.
  return jnp.zeros((256, num_classes)).at[:num_classes].set(table)

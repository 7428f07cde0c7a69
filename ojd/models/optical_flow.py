"""Dense optical flow from frame to frame, and class maps warped along it.

The flow of a pixel is the offset, x and y, to its place in the frame before. It
is computed on the host, by OpenCV or another function; jitted programs call it
back.
"""

import functools
import threading
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ojd.errors import UserError
from ojd.types import Frame

# (frame, previous), [H, W, 3] uint8 each -> [H, W, 2] float32, x before y.
HostFlow = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Settings of OpenCV for dense inverse search. On five labelled clips the
# fastest is as good as `fast`; `medium` takes ten times as long, and labels
# carried over seven frames agree better by 0.01 to 0.04 of mIoU.
DIS_PRESETS = ("ultrafast", "fast", "medium")
# XLA's CPU client copies larger operands of a callback in its own threads. On
# one core there is one, which waits for the callback: a deadlock.
_MAX_OPERAND_BYTES = 1 << 16


# By the names that options take: `raft` is a network of torch's own weights.
DEFAULT = "dis:medium"
KNOWN = (*(f"dis:{name}" for name in DIS_PRESETS), "raft:FILE")


def as_flow(flow: str | HostFlow) -> HostFlow:
  """The function of a name, `dis:PRESET`; a function is its own.

  `raft:FILE` is opened by the room of teachers and comes as a function.
  """
  if not isinstance(flow, str):
    return flow
  name, _, preset = flow.partition(":")
  if name != "dis" or preset not in DIS_PRESETS:
    raise UserError(f"flow={flow}: unknown; known are {', '.join(KNOWN)}")
  return dis(preset)


@functools.cache
def dis(preset: str) -> HostFlow:
  """Dense inverse search; the same flow on any number of cores.

  Args:
    preset: one of DIS_PRESETS.
  """
  number, lock = DIS_PRESETS.index(preset), threading.Lock()
  # By size, made by the first call: OpenCV takes a while to import, and its
  # search keeps what it chose for small frames when larger ones follow.
  searchers = {}

  def flow(frame, previous):
    import cv2

    greys = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in (frame, previous)]
    with lock:  # its buffers serve one call at a time
      if greys[0].shape not in searchers:
        # Each of its threads searches a band by itself: as many bands as
        # cores would be another flow on each machine.
        cv2.setNumThreads(1)
        searchers[greys[0].shape] = cv2.DISOpticalFlow_create(number)
      return searchers[greys[0].shape].calc(*greys, None)

  return flow


def dense_flow(
  frame: Frame, previous: Frame, flow_fn: HostFlow | None = None
) -> jax.Array:
  """Where each pixel of a frame was in the one before; [H, W, 2] float32.

  Args:
    frame: [H, W, 3] uint8.
    previous: [H, W, 3] uint8.
    flow_fn: computes it on the host; None for `dis("medium")`.
  """
  flow_fn = flow_fn or dis("medium")
  height, width, _ = frame.shape
  rows = max(1, _MAX_OPERAND_BYTES // (3 * width))
  cuts = tuple(range(rows, height, rows))

  def on_host(pieces, previous_pieces):
    whole = lambda parts: np.concatenate([np.asarray(x) for x in parts])
    flow = flow_fn(whole(pieces), whole(previous_pieces))
    return np.asarray(flow, np.float32)

  return jax.pure_callback(
    on_host,
    jax.ShapeDtypeStruct((height, width, 2), np.float32),
    jnp.split(jnp.asarray(frame), cuts),
    jnp.split(jnp.asarray(previous), cuts),
    vmap_method="sequential",
  )


def warp(classes: jax.Array, flow: jax.Array) -> jax.Array:
  """The class map of the frame before, warped; nearest neighbour.

  Pixels from beyond the frame get the class of the nearest edge.

  Args:
    classes: [H, W] integer, of the frame before.
    flow: [H, W, 2] float, of `dense_flow`.
  """
  height, width = classes.shape
  # Clipped, so that the cast to integers is safe.
  limit = float(max(height, width))
  x, y = jnp.moveaxis(jnp.clip(jnp.round(flow), -limit, limit), -1, 0)
  rows = jnp.arange(height)[:, None] + y.astype(jnp.int32)
  columns = jnp.arange(width)[None] + x.astype(jnp.int32)
  return classes[jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)]

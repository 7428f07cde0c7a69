"""Flow of textures moved by hand, and warping beside a loop."""

import subprocess
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ojd.models import optical_flow
from tests import binaries
from tests.reference import pictures


@pytest.mark.parametrize("preset", optical_flow.DIS_PRESETS)
@pytest.mark.parametrize(("down", "right"), [(3, -2), (0, 5)])
def test_known_shift_is_undone_to_the_pixel(preset, down, right):
  previous, frame = pictures.views(2, 97, 130, -down, -right)
  flow_fn = optical_flow.dis(preset)
  flow = jax.jit(lambda a, b: optical_flow.dense_flow(a, b, flow_fn))(
    frame, previous
  )
  assert flow.shape == (97, 130, 2) and flow.dtype == jnp.float32
  inside = np.s_[8:-8, 8:-8]
  # x comes first, and it says where the pixel was.
  is_right = np.rint(flow[inside]) == [-right, -down]
  classes = pictures.blotches(97, 130, seed=1)[..., 0]
  warped = optical_flow.warp(classes, flow)
  expected = np.roll(classes, (down, right), (0, 1))
  is_moved = warped[inside] == expected[inside]
  if preset == "medium":
    assert is_right.all() and is_moved.all()
  assert is_right.mean() > 0.99 and is_moved.mean() > 0.99


def test_warp_equals_a_loop():
  rng = np.random.default_rng(0)
  classes = rng.integers(0, 5, (13, 17)).astype(np.uint8)
  flow = rng.normal(0, 6, (13, 17, 2)).astype(np.float32)
  flow[0, 0], flow[3, 4], flow[5, 5] = (np.inf, -np.inf), (1e30, 0), (0.5, 2.5)
  expected = np.zeros_like(classes)
  for y, x in np.ndindex(13, 17):
    dx, dy = np.clip(np.rint(flow[y, x]), -99, 99).astype(int)
    row, column = min(max(y + dy, 0), 12), min(max(x + dx, 0), 16)
    expected[y, x] = classes[row, column]
  np.testing.assert_array_equal(optical_flow.warp(classes, flow), expected)


def test_scan_cond_and_vmap_give_what_the_host_gives():
  """Frames of more bytes than one operand may have."""
  shifts = np.random.default_rng(3).integers(-4, 5, (4, 2))
  views = [pictures.views(2, 150, 211, *shift) for shift in shifts]
  previous, frames = map(np.stack, zip(*views, strict=True))
  expected = [
    optical_flow.dis("medium")(np.array(a), np.array(b))
    for a, b in zip(frames, previous, strict=True)
  ]

  def turn(count, pair):
    flow = lax.cond(
      count % 2 == 0,
      lambda: optical_flow.dense_flow(*pair),
      lambda: jnp.zeros((150, 211, 2), jnp.float32),
    )
    return count + 1, flow

  scanned = jax.jit(lambda *x: lax.scan(turn, 0, x)[1])(frames, previous)
  mapped = jax.jit(jax.vmap(optical_flow.dense_flow))(frames, previous)
  for i in range(4):
    np.testing.assert_array_equal(mapped[i], expected[i])
    np.testing.assert_array_equal(scanned[i], expected[i] * (i % 2 == 0))


_ONE_CORE = """
import psutil
process = psutil.Process()
if hasattr(process, "cpu_affinity"):  # not on a Mac: then on all cores
  process.cpu_affinity(process.cpu_affinity()[:1])  # before any thread
import jax, numpy as np
from ojd.models import optical_flow
step = jax.jit(
  lambda previous, frame: (frame, optical_flow.dense_flow(frame, previous)),
  donate_argnums=0,
)
frames = np.random.default_rng(0).integers(0, 256, (3, 400, 500, 3), np.uint8)
state, total = jax.numpy.asarray(frames[0]), 0
for frame in frames:
  state, flow = step(state, frame)
  total += float(abs(flow).sum())
print(total > 0)
"""


def test_large_frames_pass_on_a_single_core():
  result = subprocess.run(
    [sys.executable, "-c", _ONE_CORE],
    cwd=binaries.ROOT,
    capture_output=True,
    text=True,
    timeout=60,
    check=True,
  )
  assert result.stdout.strip() == "True"


def test_flow_does_not_follow_threads_or_sizes_before_it():
  rng = np.random.default_rng(0)
  large = rng.integers(0, 256, (2, 240, 320, 3), np.uint8)
  optical_flow.dis.cache_clear()
  expected = optical_flow.dis("medium")(*large)
  assert cv2.getNumThreads() == 1
  optical_flow.dis.cache_clear()
  flow = optical_flow.dis("medium")
  for height, width in ((16, 20), (12, 12), (33, 17)):
    flow(*rng.integers(0, 256, (2, height, width, 3), np.uint8))
  np.testing.assert_array_equal(flow(*large), expected)

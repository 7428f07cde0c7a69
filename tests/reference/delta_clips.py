"""Students of every network small enough for a test, and frames to see."""

import jax
import numpy as np

from ojd.models import jitnet, mobilenet_seg, shadow
from ojd.models.student import from_linen

NETWORKS = {
  "jitnet": jitnet.JITNet(3, width=0.125),
  "mobilenet_v2": mobilenet_seg.MobileNetSeg(3, width=0.1),
  "shadow": shadow.ShadowStudent(3, width=0.125),
}


def clip(num_frames=4, height=32, width=48, seed=0):
  """A square that moves over noise that flickers, [T, H, W, 3] uint8."""
  rng = np.random.default_rng(seed)
  still = rng.integers(60, 180, (height, width, 3))
  frames = still + rng.integers(-8, 9, (num_frames, height, width, 3))
  for t in range(num_frames):
    frames[t, 8:20, 4 + 3 * t : 16 + 3 * t] = (220, 40, 60)
  return frames.astype(np.uint8)


def student(name="jitnet"):
  return from_linen(NETWORKS[name])


def params(student, net, dtype=np.float32, seed=0):
  """Of a network and its rules, drawn without compiling; no bias is 0."""
  rng = np.random.default_rng(seed)

  def draw(path, x):
    noise = rng.standard_normal(x.shape)
    if x.ndim == 1:
      return (noise / 10 + ("scale" in str(path[-1]))).astype(dtype)
    return (noise / np.sqrt(np.prod(x.shape[:-1]))).astype(dtype)

  frame = jax.ShapeDtypeStruct((32, 48, 3), np.uint8)
  shapes = jax.eval_shape(student.init, jax.random.key(0), frame)
  model = jax.tree.map_with_path(draw, shapes)
  return {"model": model, "delta": net.begin(jax.random.key(1), model)}

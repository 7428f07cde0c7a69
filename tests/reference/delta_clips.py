"""Students of every network small enough for a test, and frames to see."""

import jax
import numpy as np

from ojd.models import jitnet, mobilenet_seg, shadow_student
from ojd.models.student import from_linen

NETWORKS = {
  "jitnet": jitnet.JITNet(3, width=0.125),
  "mobilenet_v2": mobilenet_seg.MobileNetSeg(3, width=0.1),
  "shadow": shadow_student.ShadowStudent(3, width=0.125),
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


def biased(params, seed=0):
  """All of the parameters moved: biases that are not 0, among others."""
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  moved = [
    x + 0.1 * jax.random.normal(key, x.shape)
    for x, key in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(treedef, moved)

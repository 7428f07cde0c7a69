"""Folders as of LVS, with frames that tell their numbers by their grey."""

import numpy as np

from ojd.formats import lvs_labels
from tests.reference import pictures, videos

H, W = 48, 64


def grey(t):
  """What frame t is filled with."""
  return 20 + 22 * t


def video(path, greys, size=(H, W)):
  """Frames of one grey each, which a coder keeps apart."""
  options = {"crf": "10", "g": "3", "bf": "2"}
  frames = [pictures.flat(grey, *size) for grey in greys]
  videos.write(path, frames, options=options, rate=videos.RATE / 2)


def record(seed, num=9):
  """Detections as Detectron writes them: boxes, classes, scores, masks."""
  rng = np.random.default_rng(seed)
  low = rng.uniform(0, 0.7, (num, 2))
  high = np.minimum(low + rng.uniform(0.1, 0.5, (num, 2)), 1)
  ids = sorted(rng.choice([1, 2, 3, 4, 6, 8, 57], num).tolist())
  masks = [rng.uniform(0, 1, (28, 28)).astype(np.float32) for _ in range(num)]
  scores = rng.uniform(0.2, 1, num).astype(np.float32)
  return [np.hstack([low, high]), ids, scores, masks]


def save_labels(root, chunk, frames):
  """A label file of a chunk."""
  content = np.array(frames, object)
  np.save(root / f"{lvs_labels.PREFIX}{chunk}.npy", content, allow_pickle=True)


def make(root, stream="driving1", counts=(5, 4), has_labels=True):
  """A stream's folder: chunks of numbered frames and their label files."""
  root.mkdir(exist_ok=True)
  first = 0
  for i, count in enumerate(counts):
    chunk = f"{stream}{i:03d}"
    ts = range(first, first + count)
    video(root / f"{chunk}.mp4", [grey(t) for t in ts])
    if has_labels:
      save_labels(root, chunk, {t - first: record(t) for t in ts})
    first += count
  return root

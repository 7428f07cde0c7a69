"""Batches to train a student on: synthetic worlds, frame pairs, and COCO."""

import concurrent.futures
from collections.abc import Callable

import numpy as np
from PIL import Image

from ojd import labels
from ojd.formats import coco
from ojd.pretraining import album
from ojd.pretraining.trainer import Recipe
from ojd.streams import base as streams
from ojd.types import IGNORE, Labels

# The authors' recipe; the learning rate falls tenfold every few epochs.
COCO = Recipe(
  num_steps=150_000,
  batch=6,
  optimizer="slow_adam",
  learning_rate=0.1,
  weight_decay=4e-5,
  height=768,
  width=768,
)
COCO_EPOCHS_A_DECAY = 10
_COCO_WEIGHT = 10.0  # the authors', of every pixel
_PAIR_FRAMES, _FARTHEST = 600, 5
_LAST_SEED = 900_000_000
_LEAST_ZOOM = 0.6  # of the frame's sides; it varies the size of things

Batch = tuple[np.ndarray, Labels]


# Rows of a batch. With several hosts each makes some of them.
_ALL = slice(None)


class Worlds:
  """Frames of an album, mirrored and zoomed with a probability of 1/2 each."""

  def __init__(self, recipe: Recipe, pages: album.Album, rows: slice = _ALL):
    self._recipe, self._pages, self._rows = recipe, pages, rows
    self._shares = album.frame_shares(pages)
    self._groups = labels.parse_groups("", album.CLASS_NAMES)

  def __call__(self, step: int) -> Batch:
    """Rows of the batch of a step: a function of recipe and step."""
    rng = np.random.default_rng([self._recipe.seed, 1, step])
    chosen = rng.choice(len(self._shares), self._recipe.batch, p=self._shares)
    # Drawn for all rows, so that each row is the same on any number of hosts.
    draws = [self._draw(rng) for _ in chosen]
    rows = list(zip(chosen, draws, strict=True))[self._rows]
    return _stack([self._example(i, *draw) for i, draw in rows])

  def _draw(self, rng):
    """The box to zoom into, or None, and whether to mirror the frame."""
    size = self._pages.frames.shape[1:3]
    box = zoom_box(rng, *size) if rng.random() < 0.5 else None
    return box, rng.random() < 0.5

  def _example(self, i, box, is_mirrored):
    frame, classes = self._pages.frames[i], self._pages.class_map(i)
    if box is not None:
      frame, classes = zoom(frame, classes, box)
    if is_mirrored:
      frame, classes = frame[:, ::-1], classes[:, ::-1]
    classes = np.ascontiguousarray(classes)
    return frame, labels.from_class_map(classes, self._groups)


class Pairs:
  """Two frames of a synthetic world; the later one has labels."""

  def __init__(self, seed: int, batch: int, height: int, width: int):
    self._seed, self._batch, self._size = seed, batch, (height, width)
    self._groups = labels.parse_groups("", album.CLASS_NAMES)

  def __call__(self, step: int) -> Batch:
    """Frames [B, 2, H, W, 3] and labels [B, H, W]; a function of the step."""
    rng = np.random.default_rng([self._seed, 2, step])
    return _stack([self._pair(rng) for _ in range(self._batch)])

  def _pair(self, rng):
    scene = album.SCENES[int(rng.integers(len(album.SCENES)))]
    seed = album.FIRST_SEED + int(rng.integers(_LAST_SEED))
    address = f"synthetic:{scene}?seed={seed}&num_frames={_PAIR_FRAMES}"
    stream = streams.open_stream(address, *self._size)
    distance = int(rng.integers(1, _FARTHEST + 1))
    t = int(rng.integers(_PAIR_FRAMES - distance))
    first, last = (next(iter(stream.read(i))) for i in (t, t + distance))
    groups = labels.match_groups(self._groups, stream.spec.class_names)
    classes = np.take(groups.lookup, last.truth)
    answer = labels.from_class_map(classes, self._groups)
    return np.stack([first.frame, last.frame]), answer


class Coco:
  """Images of a COCO folder, each once per epoch; half of them are mirrored."""

  def __init__(self, recipe: Recipe, images: coco.CocoSet, rows: slice = _ALL):
    self._recipe, self._images, self._rows = recipe, images, rows

  def __call__(self, step: int) -> Batch:
    """Rows of the batch of a step: a function of recipe and step."""
    rng = np.random.default_rng([self._recipe.seed, 1, step])
    batch = self._recipe.batch
    places = range(step * batch, (step + 1) * batch)
    are_mirrored = rng.random(batch) < 0.5
    rows = list(zip(places, are_mirrored, strict=True))[self._rows]
    return _stack([self._example(*row) for row in rows])

  def _example(self, place, is_mirrored):
    epoch, i = divmod(place, len(self._images))
    order = np.random.default_rng([self._recipe.seed, 0, epoch])
    i = int(order.permutation(len(self._images))[i])
    frame, classes = coco.resize_and_pad(
      *self._images.read(i), self._recipe.height
    )
    if is_mirrored:
      frame, classes = frame[:, ::-1], classes[:, ::-1]
    weights = np.where(classes == IGNORE, 0.0, _COCO_WEIGHT)
    return frame, Labels(classes, weights.astype(np.float32))


def zoom_box(rng, height: int, width: int) -> tuple[int, int, int, int]:
  """A random part of a frame: left, top, right, bottom."""
  share = rng.uniform(_LEAST_ZOOM, 1.0)
  rows, columns = int(share * height), int(share * width)
  top = int(rng.integers(height - rows + 1))
  left = int(rng.integers(width - columns + 1))
  return left, top, left + columns, top + rows


def zoom(frame: np.ndarray, classes: np.ndarray, box: tuple[int, ...]):
  """Scales a part of a frame to the size of the frame."""
  height, width = classes.shape
  resize = lambda x, how: np.asarray(
    Image.fromarray(x).resize((width, height), how, box)
  )
  return (
    resize(frame, Image.Resampling.BILINEAR),
    resize(classes, Image.Resampling.NEAREST),
  )


def ahead(batch_fn: Callable[[int], Batch]) -> Callable[[int], Batch]:
  """The same batches; a thread makes the next one during a step."""
  pool = concurrent.futures.ThreadPoolExecutor(1)
  coming: dict[int, concurrent.futures.Future] = {}

  def batch(step: int) -> Batch:
    future = coming.pop(step, None) or pool.submit(batch_fn, step)
    made = future.result()
    coming[step + 1] = pool.submit(batch_fn, step + 1)
    return made

  return batch


def _stack(examples):
  frames, answers = zip(*examples, strict=True)
  classes, weights = zip(*answers, strict=True)
  return np.stack(frames), Labels(np.stack(classes), np.stack(weights))

"""Batches for training a student beforehand: made-up worlds, or COCO."""

import concurrent.futures
from collections.abc import Callable

import numpy as np
from PIL import Image

from experiments import album
from ojd import labels
from ojd.formats import coco
from ojd.pretraining import Recipe
from ojd.types import IGNORE, Labels

# The authors' recipe; the rate falls tenfold every so many epochs.
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
_LEAST_ZOOM = 0.6  # of the frame's sides; things of other sizes are seen too

Batch = tuple[np.ndarray, Labels]


class Worlds:
  """Frames of an album: mirrored and zoomed into, half of the time each."""

  def __init__(self, recipe: Recipe, pages: album.Album):
    self._recipe, self._pages = recipe, pages
    self._shares = album.frame_shares(pages)
    self._groups = labels.parse_groups("", album.CLASS_NAMES)

  def __call__(self, step: int) -> Batch:
    """The batch of a step: a function of recipe and step."""
    rng = np.random.default_rng([self._recipe.seed, 1, step])
    chosen = rng.choice(len(self._shares), self._recipe.batch, p=self._shares)
    return _stack([self._lesson(rng, i) for i in chosen])

  def _lesson(self, rng, i):
    frame, classes = self._pages.frames[i], self._pages.class_map(i)
    if rng.random() < 0.5:
      frame, classes = zoom(rng, frame, classes)
    if rng.random() < 0.5:
      frame, classes = frame[:, ::-1], classes[:, ::-1]
    classes = np.ascontiguousarray(classes)
    return frame, labels.from_class_map(classes, self._groups)


class Coco:
  """Images of a COCO folder, each once an epoch, mirrored half of the time."""

  def __init__(self, recipe: Recipe, images: coco.CocoSet):
    self._recipe, self._images = recipe, images

  def __call__(self, step: int) -> Batch:
    """The batch of a step: a function of recipe and step."""
    rng = np.random.default_rng([self._recipe.seed, 1, step])
    first = step * self._recipe.batch
    places = range(first, first + self._recipe.batch)
    return _stack([self._lesson(rng, place) for place in places])

  def _lesson(self, rng, place):
    epoch, i = divmod(place, len(self._images))
    order = np.random.default_rng([self._recipe.seed, 0, epoch])
    i = int(order.permutation(len(self._images))[i])
    frame, classes = coco.resize_and_pad(
      *self._images.read(i), self._recipe.height
    )
    if rng.random() < 0.5:
      frame, classes = frame[:, ::-1], classes[:, ::-1]
    weights = np.where(classes == IGNORE, 0.0, _COCO_WEIGHT)
    return frame, Labels(classes, weights.astype(np.float32))


def zoom(rng, frame: np.ndarray, classes: np.ndarray):
  """A random part of a frame, as large as the whole."""
  height, width = classes.shape
  share = rng.uniform(_LEAST_ZOOM, 1.0)
  rows, columns = int(share * height), int(share * width)
  top = int(rng.integers(height - rows + 1))
  left = int(rng.integers(width - columns + 1))
  box = left, top, left + columns, top + rows
  resize = lambda x, how: np.asarray(
    Image.fromarray(x).resize((width, height), how, box)
  )
  return (
    resize(frame, Image.Resampling.BILINEAR),
    resize(classes, Image.Resampling.NEAREST),
  )


def ahead(batch_fn: Callable[[int], Batch]) -> Callable[[int], Batch]:
  """The same batches, the next one made while the last is learnt from."""
  pool = concurrent.futures.ThreadPoolExecutor(1)
  coming: dict[int, concurrent.futures.Future] = {}

  def batch(step: int) -> Batch:
    future = coming.pop(step, None) or pool.submit(batch_fn, step)
    made = future.result()
    coming[step + 1] = pool.submit(batch_fn, step + 1)
    return made

  return batch


def _stack(lessons):
  frames, answers = zip(*lessons, strict=True)
  classes, weights = zip(*answers, strict=True)
  return np.stack(frames), Labels(np.stack(classes), np.stack(weights))

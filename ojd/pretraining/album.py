"""Frames of many synthetic worlds, drawn once and used for many steps.

`evaluate` measures a student on worlds that are not in any album.
"""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ojd import labels, metrics
from ojd.streams import base as streams
from ojd.streams.synthetic import places
from ojd.types import Sample

# All classes of the worlds; an album uses their indices as class ids.
CLASS_NAMES = places.class_names("cuts", has_cuts=True)
SCENES = ("street", "street", "park", "sports", "night_fall")
# Lower seeds are for evaluation and for runs.
FIRST_SEED = 10_000
_LAST_SEED = 900_000_000
_NUM_FRAMES = 600  # of a world; an album has a few of them
# Frames of a class in less than this share of frames are drawn more often.
_COMMON = 0.5


class Plan(NamedTuple):
  """The parameters that determine an album."""

  seed: int
  num_worlds: int
  frames_per_world: int
  height: int
  width: int


class Album(NamedTuple):
  """Frames and their instances.

  Attributes:
    frames: [N, H, W, 3] uint8.
    things: [N, H, W] uint8; the number of the thing at each pixel; 0: none.
    class_ids: [N, 256] uint8; the class of each number.
  """

  frames: np.ndarray
  things: np.ndarray
  class_ids: np.ndarray

  def class_map(self, i: int) -> np.ndarray:
    """Classes of frame i, [H, W] uint8."""
    return self.class_ids[i][self.things[i]]


def draw(
  plan: Plan, report_fn: Callable[[int], None] = lambda num_worlds: None
) -> Album:
  """Draws an album on all cores; a plan always gives the same album.

  Args:
    plan: the parameters.
    report_fn: called with the number of worlds drawn so far.
  """
  work = [(plan, world) for world in range(plan.num_worlds)]
  num_frames = plan.num_worlds * plan.frames_per_world
  album = Album(
    np.empty((num_frames, plan.height, plan.width, 3), np.uint8),
    np.empty((num_frames, plan.height, plan.width), np.uint8),
    np.empty((num_frames, 256), np.uint8),
  )
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(
    min(len(os.sched_getaffinity(0)), plan.num_worlds), context
  ) as pool:
    for world, parts in enumerate(pool.map(_draw_world, work)):
      first = world * plan.frames_per_world
      for whole, part in zip(album, parts, strict=True):
        whole[first : first + plan.frames_per_world] = part
      report_fn(world + 1)
  return album


def frame_shares(album: Album) -> np.ndarray:
  """The probability of drawing each frame, [N]; rare classes are preferred.

  The weight of a frame is max(1, sqrt(0.5 / f)), where f is the share of frames
  that show its rarest class.
  """
  classes = range(1, len(CLASS_NAMES))
  shows = np.stack([(album.class_ids == c).any(1) for c in classes], 1)
  frequency = np.maximum(shows.mean(0), 1e-6)
  factor = np.maximum(np.sqrt(_COMMON / frequency), 1.0)
  repeats = np.where(shows, factor, 1.0).max(1)
  return repeats / repeats.sum()


def _draw_world(work):
  plan, world = work
  rng = np.random.default_rng([plan.seed, world])
  scene = SCENES[int(rng.integers(len(SCENES)))]
  seed = FIRST_SEED + int(rng.integers(_LAST_SEED))
  address = f"synthetic:{scene}?seed={seed}&num_frames={_NUM_FRAMES}"
  stream = streams.open_stream(address, plan.height, plan.width)
  lookup = np.array([CLASS_NAMES.index(n) for n in stream.spec.class_names])
  # One frame from each stretch, so that the frames differ.
  stretch = _NUM_FRAMES // plan.frames_per_world
  moments = np.arange(plan.frames_per_world) * stretch
  moments += rng.integers(stretch, size=plan.frames_per_world)
  pages = [_page(*stream.annotated(int(t)), lookup) for t in moments]
  return tuple(np.stack(part) for part in zip(*pages, strict=True))


def _page(frame, instances, lookup):
  class_ids = np.zeros(256, np.uint8)
  class_ids[1 : len(instances.class_ids) + 1] = lookup[instances.class_ids]
  numbers = np.arange(1, len(instances.masks) + 1, dtype=np.uint8)
  # Things never share a pixel.
  things = (instances.masks * numbers[:, None, None]).sum(0, dtype=np.uint8)
  return frame, np.broadcast_to(things, frame.shape[:2]), class_ids


STREAMS = tuple(
  f"synthetic:{scene}?seed={seed}"
  for scene in ("street", "park", "sports", "night_fall", "cuts")
  for seed in (1, 2)
)
MEAN, WITH_BACKGROUND = "mean", "with background"


def evaluate(
  classify: Callable[[Sample], np.ndarray],
  addresses: Sequence[str],
  height: int,
  width: int,
  *,
  every: int,
) -> dict[str, float]:
  """IoU of each class and their means, against the exact masks.

  Args:
    classify: returns the class map [H, W] of a frame, over CLASS_NAMES.
    addresses: of the streams.
    height: of the frames.
    width: of the frames.
    every: n, to evaluate every n-th frame.
  """
  names = CLASS_NAMES
  groups = labels.parse_groups("", names)
  confusion = np.zeros((len(names), len(names)), np.int64)
  for address in addresses:
    stream = streams.open_stream(address, height, width)
    truth_groups = labels.match_groups(groups, stream.spec.class_names)
    for t in range(0, stream.spec.num_frames, every):
      sample = next(iter(stream.read(t)))
      truth = np.take(truth_groups.lookup, sample.truth)
      answer = classify(sample)
      confusion += metrics.confusion_matrix(truth, answer, len(names))
  iou = metrics.iou_per_class(confusion)
  table = dict(zip(names[1:], iou[1:].tolist(), strict=True))
  table[MEAN] = metrics.run_miou(confusion)
  table[WITH_BACKGROUND] = float(np.nanmean(iou))
  return table


def in_words(table: dict[str, float]) -> str:
  """The table as text, one line per class."""
  lines = [f"  {name:<15} {value:.3f}" for name, value in table.items()]
  return "\n".join(["IoU on unseen worlds:", *lines])

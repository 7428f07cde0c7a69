"""The label files of LVS: what a large Mask R-CNN saw in each frame of a chunk.

`detectron_large_mask_rcnn_1_<stream><NNN>.npy` belongs to `<stream><NNN>.mp4`.
It is a pickled dict: frame in the chunk, from 0 -> [boxes, class ids, scores,
masks], boxes as y0, x0, y1, x1 in parts of the frame's height and width, class
ids 1..80 in COCO's order, masks as small soft squares of the box.
"""

import functools
import hashlib
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ojd.errors import UserError
from ojd.formats import safe_pickle
from ojd.labels import BACKGROUND_NAME
from ojd.types import Instances

PREFIX, SUFFIX = "detectron_large_mask_rcnn_1_", ".npy"
_CHUNK = re.compile(r"(.+)(\d{3})")
_MAX_FILE_BYTES = 4 << 30
_MAX_INSTANCES = 1000  # in a frame; the authors' detector stops at 100
_MAX_MASK_SIDE = 256
_HASHED_BYTES = 1 << 20  # at either end of a file

COCO_NAMES = (
  BACKGROUND_NAME,
  *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train"),
  *("truck", "boat", "traffic light", "fire hydrant", "stop sign"),
  *("parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
  *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella"),
  *("handbag", "tie", "suitcase", "frisbee", "skis", "snowboard"),
  *("sports ball", "kite", "baseball bat", "baseball glove", "skateboard"),
  *("surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork"),
  *("knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange"),
  *("broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair"),
  *("couch", "potted plant", "bed", "dining table", "toilet", "tv"),
  *("laptop", "mouse", "remote", "keyboard", "cell phone", "microwave"),
  *("oven", "toaster", "sink", "refrigerator", "book", "clock", "vase"),
  *("scissors", "teddy bear", "hair drier", "toothbrush"),
)


class LabelFile:
  """The labels of one chunk; a frame is checked when it is read."""

  def __init__(self, path: pathlib.Path, frames: dict[Any, Any]):
    self.path = path
    self._frames = frames

  def __len__(self):
    return len(self._frames)

  def __contains__(self, t: int) -> bool:
    return t in self._frames

  def instances(self, t: int, height: int, width: int) -> Instances:
    """What was seen in frame t of the chunk, in pixels of height x width."""
    try:
      return _instances(self._frames[t], height, width)
    except (ValueError, TypeError, OverflowError) as error:
      raise UserError(
        f"{self.path}: the labels of frame {t} are not LVS's ({error})"
      ) from None


def load(path: pathlib.Path) -> LabelFile:
  """Reads a label file; nothing in it is executed.

  The last two are kept: stream and teacher may read the same one, and around
  the end of a chunk the stream is ahead.
  """
  try:
    stat = path.stat()
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror}") from None
  return _load(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _load(path, size, changed):
  del changed  # only distinguishes a file from an earlier one
  if size > _MAX_FILE_BYTES:
    raise UserError(
      f"{path} has {size >> 20} MiB; labels have at most "
      f"{_MAX_FILE_BYTES >> 20}"
    )
  try:
    with path.open("rb") as file:
      frames = safe_pickle.load_object(file)
    if not isinstance(frames, dict):
      raise ValueError("it holds no dict of frames")
    if not all(type(t) is int and t >= 0 for t in frames):
      raise ValueError("it has frames that are not counted from 0")
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror}") from None
  except ValueError as error:
    raise UserError(f"{path} is not a label file of LVS ({error})") from None
  return LabelFile(path, frames)


def _instances(record, height, width):
  """Four lists by position -> Instances, or ValueError."""
  if not isinstance(record, list | tuple) or len(record) != 4:
    raise ValueError("not [boxes, class ids, scores, masks]")
  boxes, class_ids, scores, masks = record
  boxes, scores = _numbers("boxes", boxes), _numbers("scores", scores)
  class_ids = _class_ids(class_ids)
  num = len(class_ids)
  if num > _MAX_INSTANCES:
    raise ValueError(f"{num} instances, more than {_MAX_INSTANCES}")
  if boxes.shape != ((num, 4) if num else boxes.shape) or scores.size != num:
    raise ValueError(
      f"boxes {boxes.shape}, scores {scores.shape} for {num} class ids"
    )
  if not num and boxes.size:
    raise ValueError(f"boxes {boxes.shape} for no class ids")
  if num and not (boxes.min() >= -1 and boxes.max() <= 2):
    raise ValueError("boxes that are not in parts of the frame")
  if num and not (scores.min() >= 0 and scores.max() <= 1):
    raise ValueError("scores that are not from 0 to 1")
  # Cut to whole pixels in double precision, as the authors do.
  scale = np.array([height, width, height, width], np.float64)
  return Instances(
    boxes=np.trunc(boxes.reshape(-1, 4) * scale).astype(np.float32),
    scores=scores.reshape(-1).astype(np.float32),
    class_ids=class_ids,
    masks=_masks(masks, num),
  )


def _numbers(name, value):
  """An array, or a list of numbers, as finite float64."""
  if isinstance(value, safe_pickle.Array):
    value = value.value()
  elif isinstance(value, list):
    value = [_number(item) for item in value]
  else:
    raise ValueError(f"{name} that are no array")
  array = np.asarray(value, np.float64)
  if not np.isfinite(array).all():
    raise ValueError(f"{name} that are not finite")
  return array


def _number(item):
  if isinstance(item, safe_pickle.Array):
    return item.value().item()
  if type(item) not in (int, float):
    raise ValueError("something that is no number")
  return item


def _class_ids(value):
  array = _numbers("class ids", value)
  if array.ndim != 1 or (array != np.trunc(array)).any():
    raise ValueError("class ids that are no list of whole numbers")
  if array.size and not (array.min() >= 1 and array.max() < len(COCO_NAMES)):
    raise ValueError(f"class ids outside 1..{len(COCO_NAMES) - 1}")
  return array.astype(np.int32)


def _masks(value, num):
  """A list of squares, or one array of them -> [num, M, M] float32."""
  if isinstance(value, list):
    arrays = [item.value() for item in value if _is_array(item)]
    if len(arrays) != len(value) or len({a.shape for a in arrays}) > 1:
      raise ValueError("masks that are not arrays of one shape")
    masks = np.stack(arrays) if arrays else np.zeros((0, 1, 1))
  elif _is_array(value):
    masks = value.value()
    masks = masks if masks.size else np.zeros((0, 1, 1))
  else:
    raise ValueError("masks that are no list")
  is_stack = masks.ndim == 3 and masks.shape[1] == masks.shape[2]
  if not is_stack or len(masks) != num or masks.shape[1] > _MAX_MASK_SIDE:
    raise ValueError(f"masks {masks.shape} for {num} class ids")
  masks = masks.astype(np.float32)
  if num and not (masks.min() >= 0 and masks.max() <= 1):
    raise ValueError("masks that are not from 0 to 1")
  return masks


def _is_array(item):
  return isinstance(item, safe_pickle.Array)


def chunk_of(path: pathlib.Path) -> str:
  """The chunk that a label file belongs to, `driving1000`."""
  return path.name.removeprefix(PREFIX).removesuffix(SUFFIX)


def stream_of(chunk: str) -> str:
  """The id of the stream of a chunk, `driving1`; empty if it names none."""
  match = _CHUNK.fullmatch(chunk)
  return match[1] if match else ""


def list_files(root: pathlib.Path) -> list[pathlib.Path]:
  """The label files of a folder in the order of their chunks."""
  return sorted(root.glob(f"{PREFIX}*{SUFFIX}"))


def fingerprint(paths: Sequence[pathlib.Path]) -> str:
  """Changes with the size, the head or the tail of any of the files."""
  digest = hashlib.sha256()
  for path in paths:
    size = path.stat().st_size
    digest.update(f"{path.name} {size}\n".encode())
    with path.open("rb") as file:
      digest.update(file.read(_HASHED_BYTES))
      file.seek(max(size - _HASHED_BYTES, 0))
      digest.update(file.read(_HASHED_BYTES))
  return digest.hexdigest()[:32]

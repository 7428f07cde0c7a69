"""The class maps of a run: PNG files or one lossless video, and their reader.

`masks/classes.json` says what the values of the pixels mean. The maps are
`masks/000000.png`, ..., with a palette, or `masks.mkv`: FFV1, 8 bits of grey.
A frame that the run could not read is missing in both.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from ojd.errors import UserError

FOLDER, VIDEO, CLASSES = "masks", "masks.mkv", "classes.json"
# Matroska's clock ticks a thousand times a second: a frame's index can be read
# from its time up to half of that.
_MAX_FPS = 500.0


class Legend(NamedTuple):
  """What the pixels of class maps mean."""

  names: tuple[str, ...]  # by class
  colors: tuple[tuple[int, int, int], ...]  # RGB
  fps: float = 0.0  # of the video: frame t is shown at t / fps


def video_rate(fps: float) -> float:
  """The rate of the label video of a stream."""
  return min(fps, _MAX_FPS)


def resize(classes: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
  """A class map at another height and width: the nearest pixel's class."""
  if size is None or size == classes.shape:
    return classes
  height, width = size
  image = Image.fromarray(classes).resize((width, height), Image.NEAREST)
  return np.asarray(image)


def write_legend(path: pathlib.Path, legend: Legend) -> None:
  """Writes the classes.json of a workdir."""
  classes = [
    {"id": i, "name": name, "color": list(color)}
    for i, (name, color) in enumerate(
      zip(legend.names, legend.colors, strict=True)
    )
  ]
  content = {"fps": legend.fps, "classes": classes}
  text = json.dumps(content, indent=2) + "\n"
  (path / FOLDER / CLASSES).write_text(text)


def read_legend(path: pathlib.Path) -> Legend:
  """Reads the classes.json of a workdir."""
  file = pathlib.Path(path) / FOLDER / CLASSES
  try:
    content = json.loads(file.read_text())
    classes = content["classes"]
    legend = Legend(
      tuple(str(x["name"]) for x in classes),
      tuple(
        (int(r), int(g), int(b)) for r, g, b in (x["color"] for x in classes)
      ),
      float(content["fps"]),
    )
    if not (legend.names and 0 <= legend.fps <= _MAX_FPS):
      raise ValueError("no class, or no such rate")
  except FileNotFoundError:
    raise UserError(
      f"{path} holds no class maps; a run with --save_masks writes them"
    ) from None
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    raise UserError(f"{file} cannot be read; run again") from None
  return legend


def read_masks(path: pathlib.Path | str) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (t, [H, W] uint8 class map) of a workdir in order, of either kind.

  Args:
    path: the workdir of a run with --save_masks.
  """
  path = pathlib.Path(path)
  fps, video = read_legend(path).fps, path / VIDEO
  if not fps:
    return _read_files(path)
  if not video.exists():
    raise UserError(f"{path} holds no whole {VIDEO} yet; run it to its end")
  return _read_video(video, fps)


def _read_video(path, fps):
  last = -1
  try:
    with av.open(path) as video:
      for frame in video.decode(video=0):
        if frame.format.name != "gray":
          raise UserError(f"{path} is no video of class maps")
        t = round(frame.pts * frame.time_base * fps)
        if t <= last:
          raise UserError(f"{path}: frame {t} comes after frame {last}")
        yield t, frame.to_ndarray()
        last = t
  except (av.error.FFmpegError, IndexError) as error:
    raise UserError(
      f"{path} cannot be read after frame {last}: {error}"
    ) from None


def _read_files(path):
  files = [x for x in (path / FOLDER).glob("*.png") if x.stem.isdecimal()]
  for file in sorted(files, key=lambda x: int(x.stem)):
    try:
      with Image.open(file) as image:
        if image.mode not in ("P", "L"):
          raise UserError(f"{file} is no class map")
        classes = np.asarray(image)
    except OSError as error:
      raise UserError(f"{file} cannot be read: {error}") from None
    yield int(file.stem), classes

"""`cityscapes:DIR?split=val&city=frankfurt`: snippets of Cityscapes as a video.

    DIR/leftImg8bit_sequence/val/frankfurt/
        frankfurt_000000_000275_leftImg8bit.png, ...
    DIR/gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png

A snippet has thirty frames, and the twentieth has labels. Those of a split
(`val`), of a city or of one `seq=000000` are played in order, with a cut from
each to the next; `frame=294` chooses the one that has this frame.

The classes are the nineteen of the benchmark, behind a background that no pixel
is: what is none of them is nobody's question. A frame without labels comes
without truth.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from ojd.labels import BACKGROUND_NAME
from ojd.streams import base, cityscapes_files, image_files
from ojd.types import IGNORE, Sample

FPS = 17.0
# The classes in the benchmark's order, by their numbers in the labels.
CLASSES = {
  **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence"},
  **{17: "pole", 19: "traffic light", 20: "traffic sign", 21: "vegetation"},
  **{22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car"},
  **{27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"},
}
_OPTIONS = ("split", "city", "seq", "frame")
_MODES = ("L", "P")  # of Pillow, in which a pixel is a number


def _make_lookup():
  lookup = np.full(256, IGNORE, np.uint8)
  lookup[list(CLASSES)] = range(1, len(CLASSES) + 1)
  return lookup


_LOOKUP = _make_lookup()  # [256] uint8, number in the labels -> class


class CityscapesStream:
  """Snippets in turn, in one size."""

  def __init__(
    self, frames: list[cityscapes_files.Frame], spec: base.StreamSpec
  ):
    """Takes the frames of all snippets in order."""
    self.spec = spec
    self._frames = frames

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples t = start, ...; a broken file comes as a None frame."""
    for t in range(start, len(self._frames)):
      yield self._sample(t)

  def _sample(self, t):
    frame, size = self._frames[t], (self.spec.width, self.spec.height)
    try:
      with image_files.opened(frame.path) as image:
        image = image_files.resized(image_files.to_rgb(image), size)
        pixels = np.asarray(image)
      truth = None if frame.labels is None else _read_labels(frame.labels, size)
    except image_files.UnreadableImage as error:
      return Sample(t, None, None, str(error))
    return Sample(t, pixels, truth)


def _read_labels(path, size):
  with image_files.opened(path) as image:
    if image.mode not in _MODES:
      raise ValueError(f"labels are numbers, not colours of {image.mode}")
    numbers = Image.fromarray(np.asarray(image))
    numbers = image_files.resized(numbers, size, Image.Resampling.NEAREST)
    return _LOOKUP[np.asarray(numbers)]


def open_stream(
  address: base.Address, height: int | None, width: int | None
) -> CityscapesStream:
  """Finds the files; reads the head of the first frame only."""
  address.refuse_others(*_OPTIONS)
  snippets = cityscapes_files.choose(address)
  frames = [frame for snippet in snippets for frame in snippet.frames]
  labels = [frame.labels for frame in frames if frame.labels is not None]
  names = (BACKGROUND_NAME, *CLASSES.values()) if labels else ()
  paths = [frame.path for frame in frames]
  source_width, source_height = image_files.first_size(paths)
  spec = base.StreamSpec(
    height=height or source_height,
    width=width or source_width,
    fps=FPS,
    num_frames=len(frames),
    class_names=names,
    identity={
      "kind": "cityscapes",
      # Which labels are of which frame is said by their names.
      "snippets": [[x.name, len(x.frames)] for x in snippets],
      "frames": image_files.fingerprint(paths),
      "labels": image_files.fingerprint(labels),
      "source_size": [source_height, source_width],
    },
    source_size=(source_height, source_width),
  )
  return CityscapesStream(frames, spec)

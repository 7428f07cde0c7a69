"""`davis:DIR?seq=NAME`: a sequence of DAVIS 2016 or 2017, or a whole split.

    DIR/JPEGImages/480p/NAME/00000.jpg, ...
    DIR/Annotations/480p/NAME/00000.png, ...
    DIR/ImageSets/2017/val.txt               names of sequences, one a line

`davis:DIR?split=val&year=2017` plays the sequences of a split in order, all in
the size of the first; without `year` the newest there is, and without either
`split=val`. `&res=Full-Resolution` takes the large frames, and `&objects=1`
tells the objects of a sequence apart: object1, object2, ... Else all of them
are "object".

Annotations are paletted, and the palette's indices are the objects' numbers; in
the first release they are grey instead, 255 being the object. A frame without
an annotation is nobody's question, as is every pixel of index 255.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from ojd.errors import UserError
from ojd.labels import BACKGROUND_NAME
from ojd.streams import base, davis_files, image_files
from ojd.types import IGNORE, Sample

FPS = 24.0
OBJECT_NAME = "object"
_OPTIONS = ("seq", "split", "year", "res", "objects")
_PALETTED, _GREY = "P", ("L", "1")  # modes of Pillow
_VOID = 255  # in a paletted annotation
_WHITE = 255  # an object, in a grey one


class DavisStream:
  """Sequences in turn, in one size."""

  def __init__(
    self, clip: davis_files.Clip, lookup: np.ndarray, spec: base.StreamSpec
  ):
    """Takes the files, and [256] uint8, number in an annotation -> class."""
    self.spec = spec
    self._clip = clip
    self._lookup = lookup

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples t = start, ...; a broken file comes as a None frame."""
    for t in range(start, len(self._clip.frames)):
      yield self._sample(t)

  def _sample(self, t):
    path, size = self._clip.frames[t], (self.spec.width, self.spec.height)
    try:
      with image_files.opened(path) as image:
        image = image_files.resized(image_files.to_rgb(image), size)
        frame = np.asarray(image)
      truth = self._truth(self._clip.annotations[t], size)
    except image_files.UnreadableImage as error:
      return Sample(t, None, None, f"{path.parent.name}: {error}")
    return Sample(t, frame, truth)

  def _truth(self, path, size):
    if not self.spec.class_names:
      return None
    if path is None:
      return np.full(size[::-1], IGNORE, np.uint8)
    numbers = Image.fromarray(_numbers(path))
    numbers = image_files.resized(numbers, size, Image.Resampling.NEAREST)
    return self._lookup[np.asarray(numbers)]


def open_stream(
  address: base.Address, height: int | None, width: int | None
) -> DavisStream:
  """Finds the files; with `objects=1` reads the annotations once."""
  address.refuse_others(*_OPTIONS)
  images, annotations = davis_files.find_folders(address)
  names = davis_files.choose(address, images)
  clips = [
    davis_files.list_files(images / name, annotations / name) for name in names
  ]
  clip = davis_files.Clip(
    frames=[path for clip in clips for path in clip.frames],
    annotations=[path for clip in clips for path in clip.annotations],
  )
  found = [path for path in clip.annotations if path is not None]
  class_names, lookup = _classes(address, found)
  source_width, source_height = image_files.first_size(clip.frames)
  spec = base.StreamSpec(
    height=height or source_height,
    width=width or source_width,
    fps=FPS,
    num_frames=len(clip.frames),
    class_names=class_names,
    identity={
      "kind": "davis",
      # Which annotation is of which frame is said by their names.
      "sequences": [
        [name, len(files.frames), sum(p is not None for p in files.annotations)]
        for name, files in zip(names, clips, strict=True)
      ],
      "frames": image_files.fingerprint(clip.frames),
      "annotations": image_files.fingerprint(found),
      "class_names": list(class_names),
      "source_size": [source_height, source_width],
    },
    source_size=(source_height, source_width),
  )
  return DavisStream(clip, lookup, spec)


def _classes(address, annotations):
  """Names of the classes, and number in an annotation -> class."""
  is_each = address.option("objects", int, 0)
  if is_each not in (0, 1):
    raise UserError(f"--stream: davis: objects={is_each} is not 0 or 1")
  lookup = np.full(256, 1, np.uint8)
  lookup[[0, _VOID]] = 0, IGNORE
  if not annotations:
    return (), lookup
  _check_kind(annotations[0])
  if not is_each:
    return (BACKGROUND_NAME, OBJECT_NAME), lookup
  lookup[:_VOID] = range(_VOID)
  most = _most_objects(annotations)
  names = (f"{OBJECT_NAME}{i}" for i in range(1, most + 1))
  return (BACKGROUND_NAME, *names), lookup


def _check_kind(path):
  """Refuses annotations of colours before all of them turn out as broken."""
  try:
    with image_files.opened(path) as image:
      mode = image.mode
  except image_files.UnreadableImage:
    return
  if mode not in (_PALETTED, *_GREY):
    raise UserError(
      f"--stream: {path} is neither paletted nor grey but {mode}; "
      "annotations of DAVIS hold the numbers of objects"
    )


def _most_objects(annotations):
  """The greatest number of an object in all annotations that are whole."""
  most = 0
  for path in annotations:
    try:
      numbers = _numbers(path)
    except image_files.UnreadableImage:
      continue
    most = max(most, int(numbers.max(initial=0, where=numbers != _VOID)))
  if not most:
    raise UserError(
      "--stream: davis: objects=1, but no annotation shows an object"
    )
  return most


def _numbers(path):
  """The objects' numbers in an annotation, [H, W] uint8."""
  with image_files.opened(path) as image:
    if image.mode == _PALETTED:
      return np.asarray(image)
    if image.mode not in _GREY:
      raise ValueError("the annotation is neither paletted nor grey")
    grey = np.asarray(image.convert("L"))
    if not np.isin(grey, (0, _WHITE)).all():
      raise ValueError("the annotation has other greys than 0 and 255")
    return (grey == _WHITE).astype(np.uint8)

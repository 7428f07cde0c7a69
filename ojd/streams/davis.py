"""`davis:DIR?seq=NAME`: a sequence of DAVIS 2016 or 2017, or a whole split.

    DIR/JPEGImages/480p/NAME/00000.jpg, ...
    DIR/Annotations/480p/NAME/00000.png, ...
    DIR/ImageSets/2017/val.txt               names of sequences, one a line

`davis:DIR?split=val&year=2017` plays the sequences of a split in order, all in
the size of the first; without `year` the newest there is, and without either
`split=val`. `&res=Full-Resolution` takes the large frames, and `&objects=1`
separates the objects of a sequence: object1, object2, ... Else all of them
are "object".

Annotations have a palette, whose indices are the objects' numbers. In the first
release they are grey instead, and 255 is the object. A frame without
an annotation is ignored, as is every pixel of index 255.
"""

import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from ojd.errors import UserError
from ojd.labels import BACKGROUND_NAME
from ojd.streams import base
from ojd.streams import images as images_lib
from ojd.types import IGNORE

FPS = 24.0
OBJECT_NAME = "object"
_OPTIONS = ("seq", "split", "year", "res", "objects")
_PALETTED, _GREY = "P", ("L", "1")  # modes of Pillow
_VOID = 255  # in a paletted annotation
_WHITE = 255  # an object, in a grey one
_RESOLUTIONS = ("480p", "Full-Resolution", "1080p")  # the first is the default
_YEARS = ("2017", "2016")  # the newest first
_IMAGES, _ANNOTATIONS, _SETS = "JPEGImages", "Annotations", "ImageSets"
_UNSUPERVISED = "Annotations_unsupervised"
_FRAME_SUFFIXES, _ANNOTATION_SUFFIXES = (".jpg", ".jpeg"), (".png",)
_MAX_LIST_BYTES = 1 << 20


class Clip(NamedTuple):
  """The files of one sequence or several, by frame."""

  frames: list[pathlib.Path]
  annotations: list[pathlib.Path | None]  # None where there is none


class DavisStream(images_lib.FilesStream):
  """Sequences in turn, in one size."""

  def __init__(self, clip: Clip, lookup: np.ndarray, spec: base.StreamSpec):
    """Takes the files, and [256] uint8, number in an annotation -> class."""
    super().__init__(clip.frames, spec)
    self._annotations, self._lookup = clip.annotations, lookup

  def _prefix(self, t):
    return f"{self._paths[t].parent.name}: "

  def _truth(self, t, size):
    path = self._annotations[t]
    if not self.spec.class_names:
      return None
    if path is None:
      return np.full(size[::-1], IGNORE, np.uint8)
    numbers = Image.fromarray(_numbers(path))
    numbers = images_lib.resized(numbers, size, Image.Resampling.NEAREST)
    return self._lookup[np.asarray(numbers)]


def open_stream(
  address: base.Address, height: int | None, width: int | None
) -> DavisStream:
  """Finds the files; with `objects=1` reads the annotations once."""
  address.refuse_others(*_OPTIONS)
  images, annotations = _find_folders(address)
  names = _choose(address, images)
  clips = [_list_files(images / name, annotations / name) for name in names]
  clip = Clip(
    frames=[path for clip in clips for path in clip.frames],
    annotations=[path for clip in clips for path in clip.annotations],
  )
  found = [path for path in clip.annotations if path is not None]
  class_names, lookup = _classes(address, found)
  spec = base.resized_spec(
    *(images_lib.first_size(clip.frames)[::-1], height, width),
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
      "frames": images_lib.fingerprint(clip.frames),
      "annotations": images_lib.fingerprint(found),
      "class_names": list(class_names),
    },
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
  """Refuses annotations in colour before the first frame."""
  try:
    with images_lib.opened(path) as image:
      mode = image.mode
  except images_lib.UnreadableImage:
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
    except images_lib.UnreadableImage:
      continue
    most = max(most, int(numbers.max(initial=0, where=numbers != _VOID)))
  if not most:
    raise UserError(
      "--stream: davis: objects=1, but no annotation shows an object"
    )
  return most


def _numbers(path):
  """The objects' numbers in an annotation, [H, W] uint8."""
  with images_lib.opened(path) as image:
    if image.mode == _PALETTED:
      return np.asarray(image)
    if image.mode not in _GREY:
      raise ValueError("the annotation is neither paletted nor grey")
    grey = np.asarray(image.convert("L"))
    if not np.isin(grey, (0, _WHITE)).all():
      raise ValueError("the annotation has other greys than 0 and 255")
    return (grey == _WHITE).astype(np.uint8)


def _find_folders(
  address: base.Address,
) -> tuple[pathlib.Path, pathlib.Path]:
  """The folders of a resolution, with the frames and the annotations."""
  root = address.expanded()
  if not (root / _IMAGES).is_dir():
    inside = sorted(root.glob(f"*/{_IMAGES}"))
    hint = f"; give davis:{inside[0].parent}" if inside else ""
    raise UserError(f"--stream: there is no folder {root / _IMAGES}{hint}")
  res = address.option("res", str, _RESOLUTIONS[0])
  kinds = {}
  for kind in (_IMAGES, _ANNOTATIONS):
    kinds[kind] = [r for r in _RESOLUTIONS if (root / kind / r).is_dir()]
  if res not in kinds[_IMAGES]:
    raise UserError(
      f"--stream: res={res}: {root / _IMAGES} has "
      f"{base.listed(kinds[_IMAGES]) or 'no ' + base.listed(_RESOLUTIONS)}"
    )
  if kinds[_ANNOTATIONS] and res not in kinds[_ANNOTATIONS]:
    raise UserError(
      f"--stream: res={res}: {root / _ANNOTATIONS} has only "
      f"{base.listed(kinds[_ANNOTATIONS])}"
    )
  if not kinds[_ANNOTATIONS] and (root / _UNSUPERVISED).is_dir():
    raise UserError(
      f"--stream: {root} has {_UNSUPERVISED} and no {_ANNOTATIONS}; rename the "
      "folder to take them as the labels"
    )
  return root / _IMAGES / res, root / _ANNOTATIONS / res


def _choose(address: base.Address, images: pathlib.Path) -> list[str]:
  """The names of the sequences to play."""
  known = sorted(path.name for path in images.iterdir() if path.is_dir())
  name = address.option("seq", str, None)
  if name is None:
    return _read_split(address, images, known)
  for other in ("split", "year"):
    if other in address.options:
      raise UserError(f"--stream: davis: seq= and {other}= exclude each other")
  if name not in known:
    raise UserError(
      f"--stream: {images} has no sequence {name!r}; it has "
      f"{base.listed(known) or 'none'}"
    )
  return [name]


def _read_split(address, images, known):
  """The names in the list of a split, of the newest year that has it."""
  sets, res = images.parents[1] / _SETS, images.name
  split = address.option("split", str, "val")
  year = address.option("year", str, None)
  # The first release has a folder by resolution, with all frames in its lists.
  folders = [(y, sets / y) for y in _YEARS] + [(_YEARS[-1], sets / res)]
  lists = {
    (y, path.stem): path
    for y, folder in reversed(folders)
    for path in sorted(folder.glob("*.txt"))
    if path.is_file()
  }
  years = _YEARS if year is None else (year,)
  path = next((lists[y, split] for y in years if (y, split) in lists), None)
  if path is None:
    there = base.listed([f"split={s}&year={y}" for y, s in sorted(lists)])
    raise UserError(
      f"--stream: {sets} has no list of split={split}"
      + (f"&year={year}" if year else "")
      + f"; it has {there or 'none'}; seq=NAME plays one of "
      + base.listed(known)
    )
  names = _read_names(path)
  if lacking := [name for name in names if name not in known]:
    raise UserError(
      f"--stream: {path} names {base.listed(lacking)}, which {images} lacks"
    )
  return names


def _read_names(path):
  """The sequences in a list of them, or of the files of their frames."""
  try:
    with path.open("rb") as file:
      text = file.read(_MAX_LIST_BYTES + 1).decode()
  except (OSError, ValueError):
    raise UserError(f"--stream: cannot read the list {path}") from None
  if len(text) > _MAX_LIST_BYTES:
    raise UserError(f"--stream: {path} is too large for a list of sequences")
  entries = [line.split()[0] for line in text.splitlines() if line.strip()]
  names = [
    pathlib.PurePosixPath(entry).parent.name if "/" in entry else entry
    for entry in entries
  ]
  if not names:
    raise UserError(f"--stream: {path} names no sequence")
  return list(dict.fromkeys(names))


def _list_files(images: pathlib.Path, annotations: pathlib.Path) -> Clip:
  """The frames of a sequence, each with the annotation of its name."""
  frames = images_lib.list_images(images, _FRAME_SUFFIXES)
  if not frames:
    raise UserError(f"--stream: {images} holds no .jpg files")
  found = []
  if annotations.is_dir():
    found = images_lib.list_images(annotations, _ANNOTATION_SUFFIXES)
  by_stem = {path.stem: path for path in found}
  paired = [by_stem.get(path.stem) for path in frames]
  if found and not any(paired):
    raise UserError(
      f"--stream: no annotation in {annotations} is of a frame in {images}: "
      f"they are named as {found[0].name} and {frames[0].name}"
    )
  return Clip(frames, paired)

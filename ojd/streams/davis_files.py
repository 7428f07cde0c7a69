"""The layout of DAVIS on a disk: which sequences there are, and their files."""

import pathlib
from typing import NamedTuple

from ojd.errors import UserError
from ojd.streams import base, image_files

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


def find_folders(
  address: base.Address,
) -> tuple[pathlib.Path, pathlib.Path]:
  """The folders of a resolution, with the frames and the annotations."""
  try:
    root = pathlib.Path(address.path).expanduser()
  except RuntimeError:
    raise UserError(f"--stream=davis:{address.path}: no such home") from None
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


def choose(address: base.Address, images: pathlib.Path) -> list[str]:
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


def list_files(images: pathlib.Path, annotations: pathlib.Path) -> Clip:
  """The frames of a sequence, each with the annotation of its name."""
  frames = image_files.list_images(images, _FRAME_SUFFIXES)
  if not frames:
    raise UserError(f"--stream: {images} holds no .jpg files")
  found = []
  if annotations.is_dir():
    found = image_files.list_images(annotations, _ANNOTATION_SUFFIXES)
  by_stem = {path.stem: path for path in found}
  paired = [by_stem.get(path.stem) for path in frames]
  if found and not any(paired):
    raise UserError(
      f"--stream: no annotation in {annotations} is of a frame in {images}: "
      f"they are named as {found[0].name} and {frames[0].name}"
    )
  return Clip(frames, paired)

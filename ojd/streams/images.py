"""`images:DIR/*.png`, `images:DIR`: any images as the frames of a stream.

The first is a pattern, in which `**` stands for folders in folders; the second
takes all images of the folder. They come in natural order, img2 before img10,
at 25 frames a second, upright, in 8-bit RGB, and in the size of the first one.
Transparent pixels are black; of an animation the first picture counts.
"""

import contextlib
import glob
import hashlib
import os
import pathlib
import re
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageOps

from ojd.errors import UserError
from ojd.streams import base
from ojd.types import Sample

FPS = 25.0
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_SUFFIXES = (*SUFFIXES, ".gif")
_MAX_BYTES_HASHED = 1 << 30
_GREY_16_BIT = "I;16"  # how such modes begin; the byte order follows


class UnreadableImage(Exception):
  """A file that is no image, or only the head of one; says which and why."""


class FilesStream:
  """Image files in the order given; their labels are a subclass's."""

  def __init__(self, paths: list[pathlib.Path], spec: base.StreamSpec):
    self.spec = spec
    self._paths = paths

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples t = start, ...; a broken file comes as a None frame."""
    size = self.spec.width, self.spec.height
    for t in range(start, len(self._paths)):
      try:
        frame, truth = self._frame(t, size), self._truth(t, size)
      except UnreadableImage as error:
        yield Sample(t, None, None, self._prefix(t) + str(error))
      else:
        yield Sample(t, frame, truth)

  def _frame(self, t, size):
    with opened(self._paths[t]) as image:
      return np.asarray(resized(to_rgb(image), size))

  def _truth(self, t, size):
    """The class map of frame t at a size (width, height); None: no labels."""

  def _prefix(self, t):
    """What a problem with frame t begins with."""
    return ""


class ImagesStream(FilesStream):
  """Images as a person sees them, without labels."""

  def _frame(self, t, size):
    return np.asarray(resized(_load(self._paths[t]), size))


def open_stream(
  address: base.Address, height: int | None, width: int | None
) -> ImagesStream:
  """Lists the files and reads those up to the first that is whole."""
  address.refuse_others()
  paths = _list_files(address)
  spec = base.resized_spec(
    *(_first_size(paths)[::-1], height, width),
    fps=FPS,
    num_frames=len(paths),
    class_names=(),
    identity={"kind": "images", "frames": fingerprint(paths)},
  )
  return ImagesStream(paths, spec)


def _list_files(address):
  """The images of a folder or a pattern, in natural order."""
  pattern, root = address.path, address.expanded()
  if pattern and root.is_dir():
    found = list_images(root, _SUFFIXES)
  else:
    names = glob.iglob(os.path.expanduser(pattern), recursive=True)
    found = map(pathlib.Path, names)
  paths = [
    path for path in found if is_image(path, _SUFFIXES) and path.is_file()
  ]
  if not paths:
    raise UserError(
      f"--stream=images:{pattern}: there are no images; give a folder or a "
      f"pattern as DIR/*.png ({', '.join(_SUFFIXES)} are read)"
    )
  return sorted(paths, key=_natural_key)


def _natural_key(path):
  """Sorts by the parts of a path, and in each by its texts and numbers."""
  return [
    [int(s) if s.isdecimal() else s for s in re.split(r"(\d+)", part)]
    for part in path.parts
  ], path


def _first_size(paths):
  """Size (width, height) of the first image that is whole."""
  problem = ""
  for path in paths:
    try:
      return _load(path).size
    except UnreadableImage as error:
      problem = problem or str(error)
  raise UserError(
    f"--stream: none of the {len(paths)} images from {paths[0]} on can be read "
    f"({problem})"
  )


def _load(path):
  """An image as a person sees it, in 8-bit RGB."""
  with opened(path) as image:
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
      image = image.convert("RGBA")
      black = Image.new("RGBA", image.size, (0, 0, 0, 255))
      image = Image.alpha_composite(black, image)
    return to_rgb(image)


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[Image.Image]:
  """An image file; inside and on entry every failure is an UnreadableImage."""
  try:
    if not path.is_file():  # a pipe would be waited for
      raise OSError("there is no such file")
    with warnings.catch_warnings():
      # Pillow's warnings: a damaged file is reported by its frame.
      warnings.filterwarnings("ignore", module=r"PIL\.")
      with Image.open(path) as image:
        yield image
  # Damaged files leave Pillow's readers with errors of nearly every kind.
  except Exception as error:
    words = " ".join(str(error).split()) or type(error).__name__
    raise UnreadableImage(f"{path.name}: {words}") from None


def to_rgb(image: Image.Image) -> Image.Image:
  """8-bit RGB; 16-bit grey is scaled, where Pillow clips it at 255."""
  if image.mode.startswith(_GREY_16_BIT):
    values = np.asarray(image).astype(np.uint32)
    image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
  return image if image.mode == "RGB" else image.convert("RGB")


def resized(
  image: Image.Image,
  size: tuple[int, int],
  resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
  """The image at a size of (width, height)."""
  return image if image.size == size else image.resize(size, resample)


def first_size(paths: Sequence[pathlib.Path]) -> tuple[int, int]:
  """Size (width, height) of the first frame that can be read."""
  for path in paths:
    try:
      with opened(path) as image:
        return image.size
    except UnreadableImage:
      continue
  raise UserError(
    f"--stream: none of the {len(paths)} frames from {paths[0]} on can be read"
  )


def list_images(
  folder: pathlib.Path, suffixes: Sequence[str] = SUFFIXES
) -> list[pathlib.Path]:
  """The images in a folder, but no hidden ones, in sorted order."""
  return sorted(path for path in folder.iterdir() if is_image(path, suffixes))


def is_image(path: pathlib.Path, suffixes: Sequence[str] = SUFFIXES) -> bool:
  """Whether a file is an image by its name, and is not hidden."""
  return path.suffix.lower() in suffixes and not path.name.startswith(".")


def fingerprint(paths: Sequence[pathlib.Path]) -> str:
  """Changes with the content of any file, but not with its path."""
  try:
    return _fingerprint(paths)
  except OSError as error:
    raise UserError(
      f"--stream: cannot read {error.filename}: {error.strerror}"
    ) from None


def _fingerprint(paths):
  sizes = [path.stat().st_size for path in paths]
  is_small = sum(sizes) <= _MAX_BYTES_HASHED
  digest = hashlib.sha256()
  for path, size in zip(paths, sizes, strict=True):
    # Reading all of a large folder would take longer than it is worth.
    seen = path.read_bytes() if is_small else path.stat().st_mtime_ns
    digest.update(os.fsencode(path.name) + f" {size}\n".encode())
    digest.update(seen if is_small else str(seen).encode())
  return digest.hexdigest()[:32]

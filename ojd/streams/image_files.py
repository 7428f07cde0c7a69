"""Image files as frames: which there are, how they are read, what they are."""

import contextlib
import hashlib
import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from ojd.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_MAX_BYTES_HASHED = 1 << 30
_GREY_16_BIT = "I;16"  # how such modes begin; the byte order follows


class UnreadableImage(Exception):
  """A file that is no image, or only the head of one; says which and why."""


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[Image.Image]:
  """An image file; inside and on entry every failure is an UnreadableImage."""
  try:
    if not path.is_file():  # a pipe would be waited for
      raise OSError("there is no such file")
    with warnings.catch_warnings():
      # What Pillow makes of a damaged file is told by the frame, or not at all.
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
  """The image at a size of (width, height); as it is where it has that."""
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
  """Changes with the content of any file, but not with where it lies."""
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

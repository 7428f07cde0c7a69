"""`images:DIR/*.png`, `images:DIR`: any images as the frames of a stream.

The first is a pattern, in which `**` stands for folders in folders; the second
takes all images of the folder. They come in natural order, img2 before img10,
at 25 frames a second, upright, in 8-bit RGB, and in the size of the first one.
What is transparent shows black; of an animation the first picture counts.
"""

import glob
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from ojd.errors import UserError
from ojd.streams import base, image_files
from ojd.types import Sample

FPS = 25.0
_SUFFIXES = (*image_files.SUFFIXES, ".gif")


class ImagesStream:
  """Image files in the order given, without labels."""

  def __init__(self, paths: list[pathlib.Path], spec: base.StreamSpec):
    self.spec = spec
    self._paths = paths

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples t = start, ...; a broken file comes as a None frame."""
    for t in range(start, len(self._paths)):
      yield self._sample(t)

  def _sample(self, t):
    size = self.spec.width, self.spec.height
    try:
      image = image_files.resized(_load(self._paths[t]), size)
    except image_files.UnreadableImage as error:
      return Sample(t, None, None, str(error))
    return Sample(t, np.asarray(image), None)


def open_stream(
  address: base.Address, height: int | None, width: int | None
) -> ImagesStream:
  """Lists the files and reads those up to the first that is whole."""
  address.refuse_others()
  paths = _list_files(address.path)
  source_width, source_height = _first_size(paths)
  spec = base.StreamSpec(
    height=height or source_height,
    width=width or source_width,
    fps=FPS,
    num_frames=len(paths),
    class_names=(),
    identity={
      "kind": "images",
      "frames": image_files.fingerprint(paths),
      "source_size": [source_height, source_width],
    },
    source_size=(source_height, source_width),
  )
  return ImagesStream(paths, spec)


def _list_files(pattern):
  """The images of a folder or a pattern, in natural order."""
  try:
    root = pathlib.Path(pattern).expanduser()
  except RuntimeError:
    raise UserError(f"--stream=images:{pattern}: no such home") from None
  if pattern and root.is_dir():
    found = image_files.list_images(root, _SUFFIXES)
  else:
    names = glob.iglob(os.path.expanduser(pattern), recursive=True)
    found = map(pathlib.Path, names)
  paths = [
    path
    for path in found
    if image_files.is_image(path, _SUFFIXES) and path.is_file()
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
    except image_files.UnreadableImage as error:
      problem = problem or str(error)
  raise UserError(
    f"--stream: none of the {len(paths)} images from {paths[0]} on can be read "
    f"({problem})"
  )


def _load(path):
  """An image as a person sees it, in 8-bit RGB."""
  with image_files.opened(path) as image:
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
      image = image.convert("RGBA")
      black = Image.new("RGBA", image.size, (0, 0, 0, 255))
      image = Image.alpha_composite(black, image)
    return image_files.to_rgb(image)

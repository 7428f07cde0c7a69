"""The student's class maps of a run, as `formats.class_maps` reads them."""

import pathlib

from PIL import Image

from ojd.formats import class_maps
from ojd.run import palette, videos, workdir
from ojd.run.writers import FrameRecord, save


class MaskFiles:
  """The student's class maps as PNG files with a palette, one a frame."""

  def __init__(
    self,
    path: pathlib.Path,
    class_names,
    size: tuple[int, int] | None = None,
    start: int = 0,
  ):
    """Makes the folder in a workdir, and drops frame `start` and later.

    Args:
      path: the workdir.
      class_names: the student's.
      size: height and width of the files; None: of the class maps.
      start: the first frame that will be written.
    """
    self._folder, self._size = path / workdir.MASKS, size
    self._palette = palette.colors(len(class_names)).tobytes()
    self._folder.mkdir(parents=True, exist_ok=True)
    videos.drop_from(self._folder, start)
    class_maps.write_legend(path, _legend(class_names))

  def write(self, record: FrameRecord) -> None:
    image = Image.fromarray(class_maps.resize(record.classes, self._size))
    image.putpalette(self._palette)
    save(image, self._folder / f"{record.t:06d}.png")


class MaskVideo:
  """The student's class maps as one lossless video."""

  def __init__(
    self,
    path: pathlib.Path,
    fps: float,
    class_names,
    size: tuple[int, int] | None = None,
    start: int = 0,
  ):
    """Takes what MaskFiles takes, and the rate of the stream."""
    self._size, rate = size, class_maps.video_rate(fps)
    (path / workdir.MASKS).mkdir(parents=True, exist_ok=True)
    class_maps.write_legend(path, _legend(class_names, rate))
    self._video = videos.PartedVideo(
      path / workdir.MASK_VIDEO,
      path / workdir.MASK_PARTS,
      videos.LABELS,
      rate,
      start,
    )
    self.cut, self.close = self._video.cut, self._video.close

  def write(self, record: FrameRecord) -> None:
    classes = class_maps.resize(record.classes, self._size)
    self._video.write(record.t, classes)


def _legend(class_names, fps=0.0):
  colors = palette.colors(len(class_names)).tolist()
  return class_maps.Legend(tuple(class_names), tuple(map(tuple, colors)), fps)

"""Which files a run writes frame by frame, by its flags."""

import pathlib

from ojd.run import masks as masks_lib
from ojd.run import regions, workdir, writers


def open_sinks(
  path: pathlib.Path,
  fps: float,
  class_names,
  *,
  video: bool = False,
  masks: str = "none",
  boxes: bool = False,
  areas: bool = False,
  size: tuple[int, int] | None = None,
  start: int = 0,
) -> list[writers.Background]:
  """The files that a run was asked for, each written in its own thread.

  Args:
    path: the workdir.
    fps: of the stream.
    class_names: the student's.
    video: whether overlays are wanted.
    masks: how class maps are: "png", "video" or "none".
    boxes: whether boxes around what is in them are.
    areas: whether the share of each class is.
    size: height and width of masks and boxes; None: the student's.
    start: the first frame; what is there of it and later is deleted.
  """
  sinks = []
  if video:
    overlays = writers.OverlayVideo(path, fps, class_names, start)
    folder = path / workdir.REPORT / "frames"
    samples = writers.SampleFrames(folder, class_names, start)
    sinks.append(
      writers.Background(overlays.write, overlays.cut, overlays.close)
    )
    sinks.append(writers.Background(samples.write))
  if masks == "png":
    files = masks_lib.MaskFiles(path, class_names, size, start)
    sinks.append(writers.Background(files.write))
  elif masks == "video":
    maps = masks_lib.MaskVideo(path, fps, class_names, size, start)
    sinks.append(writers.Background(maps.write, maps.cut, maps.close))
  if boxes:
    files = regions.BoxFiles(path, class_names, size, start)
    sinks.append(writers.Background(files.write, close=files.close))
  if areas:
    files = regions.AreaLines(path, class_names, start)
    sinks.append(writers.Background(files.write, close=files.close))
  return sinks

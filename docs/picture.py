"""Draws the picture of the README: one frame, and what two students say of it.

    python -m docs.picture

The runs are of a drawn park, with the bundled Mask R-CNN as the teacher. Both
students begin with the bundled parameters; one of them adapts. Takes two
minutes on two cores and writes docs/adapted.jpg.
"""

import pathlib
import tempfile

from PIL import Image

import ojd
from ojd import labels
from ojd.formats import class_maps
from ojd.run import overlay
from ojd.teachers import labelers

_STREAM, _HEIGHT, _WIDTH = "synthetic:park?seed=3", 288, 480
_NUM_FRAMES, _T = 600, 305  # T is no key frame
_TITLES = ("frame", "teacher", "student, frozen", "student, adapted")


def main() -> None:
  """Writes the picture."""
  stream = ojd.streams.open_stream(_STREAM, _HEIGHT, _WIDTH)
  sample = next(stream.read(_T))
  teacher = ojd.teachers.create("mask_rcnn_tiny", height=_HEIGHT, width=_WIDTH)
  groups = labels.parse_groups("", teacher.class_names)
  taught = labelers.label(teacher, sample, groups).labels.classes
  image = Image.fromarray(sample.frame)
  panels = [
    overlay.paint_classes(image, classes, len(groups.names))
    for classes in (taught, _answer("frozen"), _answer("jit_plus"))
  ]
  picture = overlay.tile([image, *panels], [(title,) for title in _TITLES])
  path = pathlib.Path(__file__).with_name("adapted.jpg")
  picture.save(path, quality=90)
  print(f"wrote {path}")


def _answer(system):
  """The class map of frame T in a run of a system."""
  with tempfile.TemporaryDirectory() as folder:
    config = ojd.RunConfig(
      stream=_STREAM,
      system=system,
      height=_HEIGHT,
      width=_WIDTH,
      num_frames=_NUM_FRAMES,
      overlay=False,
      save_masks="video",
      workdir=folder,
    )
    mean = ojd.online_distill(config).summary["miou"]["mean"]
    print(f"{system}: mIoU {mean:.3f} over {_NUM_FRAMES} frames")
    return dict(class_maps.read_masks(folder))[_T]


if __name__ == "__main__":
  main()

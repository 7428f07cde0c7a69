"""`lvs:DIR`: a stream of LVS, its video chunks in the order of their names.

DIR holds `<stream><NNN>.mp4` and, where there are labels, beside each chunk
`detectron_large_mask_rcnn_1_<stream><NNN>.npy`. The labels become the stream's
truth by the rules for a teacher's instances. The classes, and the default of
`--classes`, are those of STREAMS; of another stream those of
`lvs:DIR?classes=person;auto=car,bus`, else all classes of COCO. A frame without
labels is ignored.
"""

import itertools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import av
import numpy as np

from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.formats import lvs_labels
from ojd.streams import base, video_file
from ojd.streams.video import decode, words
from ojd.types import IGNORE, Sample

_VIDEO_SUFFIX = ".mp4"
_OPTIONS = ("classes",)
_PERSON = "person"
_AUTO = "auto=car,bus,truck"
_BIKE = "bike=bicycle,motorcycle"
_PERSON_AUTO = f"{_PERSON};{_AUTO}"
_PERSON_AUTO_BIKE = f"{_PERSON};{_AUTO};{_BIKE}"
FIXED, MOVING, EGO = "Sports (Fixed)", "Sports (Moving)", "Sports (Ego)"
ANIMALS, TRAFFIC, DRIVING = "Animals", "Traffic", "Driving/Walking"
OVERALL = "Overall"  # in the paper's average, but in none of its categories


class Entry(NamedTuple):
  """A stream of the JITNet paper: its name and its classes."""

  name: str
  category: str
  classes: str  # as --classes takes them


STREAMS = {
  "badminton1": Entry("Badminton", FIXED, _PERSON),
  "squash1": Entry("Squash", FIXED, _PERSON),
  "table_tennis1": Entry("Table Tennis", FIXED, _PERSON),
  "softball1": Entry("Softball", FIXED, _PERSON),
  "soccer1": Entry("Soccer", MOVING, _PERSON),
  "tennis3": Entry("Tennis", MOVING, _PERSON),
  "volleyball3": Entry("Volleyball", MOVING, _PERSON),
  "ice_hockey1": Entry("Ice Hockey", MOVING, _PERSON),
  "kabaddi1": Entry("Kabaddi", MOVING, _PERSON),
  "figure_skating1": Entry("Figure Skating", MOVING, _PERSON),
  "drone2": Entry("Drone", MOVING, _PERSON),
  "hockey1": Entry("Hockey", OVERALL, _PERSON),
  "ice_hockey_ego_1": Entry("Ego Ice Hockey", EGO, _PERSON),
  "ego_dodgeball1": Entry("Ego Dodgeball", EGO, _PERSON),
  "ego_soccer1": Entry("Ego Soccer", EGO, _PERSON),
  "basketball_ego1": Entry("Ego Basketball", EGO, "person;car"),
  "biking1": Entry("Biking", EGO, f"{_PERSON};{_BIKE}"),
  "elephant1": Entry("Elephant", ANIMALS, "elephant"),
  "birds2": Entry("Birds", ANIMALS, "bird"),
  "giraffe1": Entry("Giraffe", ANIMALS, "person;giraffe"),
  "horses1": Entry("Horse", ANIMALS, "person;horse"),
  "dogs2": Entry("Dog", ANIMALS, f"person;dog;{_AUTO}"),
  "streetcam1": Entry("Streetcam1", TRAFFIC, _PERSON_AUTO),
  "streetcam2": Entry("Streetcam2", TRAFFIC, _PERSON_AUTO),
  "jackson_hole1": Entry("Jackson Hole", TRAFFIC, _PERSON_AUTO),
  "toomer1": Entry("Toomer", TRAFFIC, _PERSON_AUTO),
  "samui_murphys1": Entry("Murphys", TRAFFIC, _PERSON_AUTO_BIKE),
  "samui_walking_street1": Entry("Samui Street", TRAFFIC, _PERSON_AUTO_BIKE),
  "driving1": Entry("Driving", DRIVING, _PERSON_AUTO_BIKE),
  "walking1": Entry("Walking", DRIVING, _PERSON_AUTO_BIKE),
}


class Chunk(NamedTuple):
  """One video file and its label file."""

  video: pathlib.Path
  labels: pathlib.Path | None
  num_frames: int


class Video(NamedTuple):
  """The metadata of a container."""

  num_frames: int
  fps: float
  height: int
  width: int


class LvsStream:
  """Chunks decoded a frame at a time; any frame can be the first."""

  def __init__(
    self,
    chunks: list[Chunk],
    truth_groups: labels_lib.ClassGroups,
    spec: base.StreamSpec,
  ):
    self.spec = spec
    self._chunks = chunks
    self._truth_groups = truth_groups

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples t = start, ...; a broken frame comes as None."""
    first = 0
    for chunk in self._chunks:
      after = first + chunk.num_frames
      if start < after:
        skip = max(start - first, 0)
        yield from self._read_chunk(chunk, first, skip)
      first = after

  def _read_chunk(self, chunk, first, skip):
    """The samples of a chunk whose first frame is `first` of the stream."""
    frames = itertools.islice(decode(chunk.video), skip, chunk.num_frames)
    for t in range(skip, chunk.num_frames):
      frame, problem = next(frames, (None, "the video ends before it"))
      if frame is None:
        problem = f"{chunk.video.name}, frame {t}: {problem}"
        yield Sample(first + t, None, None, problem)
      else:
        yield Sample(first + t, self._image(frame), self._truth(chunk, t))

  def _image(self, frame):
    return frame.to_ndarray(
      format="rgb24",
      width=self.spec.width,
      height=self.spec.height,
      interpolation="BILINEAR",
    )

  def _truth(self, chunk, t):
    if not self.spec.class_names:
      return None
    size = self.spec.height, self.spec.width
    file = chunk.labels and lvs_labels.load(chunk.labels)
    if not file or t not in file:
      return np.full(size, IGNORE, np.uint8)
    instances = file.instances(t, *size)
    labels = labels_lib.from_instances(instances, self._truth_groups, *size)
    return labels.classes


def open_stream(
  address: base.Address, height: int | None, width: int | None
) -> LvsStream:
  """Opens the chunks' heads; a label file is read when its chunk begins."""
  address.refuse_others(*_OPTIONS)
  root = address.expanded()
  videos = _list_videos(root)
  heads = [_probe(path) for path in videos]
  labels = {lvs_labels.chunk_of(p): p for p in lvs_labels.list_files(root)}
  chunks = [
    Chunk(path, labels.get(path.stem), head.num_frames)
    for path, head in zip(videos, heads, strict=True)
  ]
  found = [chunk.labels for chunk in chunks if chunk.labels]
  classes = address.option("classes", str, _default_classes(videos[0]))
  truth_groups = _truth_groups(classes)
  spec = base.resized_spec(
    *((heads[0].height, heads[0].width), height, width),
    fps=heads[0].fps,
    num_frames=sum(head.num_frames for head in heads),
    class_names=truth_groups.names if found else (),
    identity={
      "kind": "lvs",
      "chunks": [[chunk.video.stem, chunk.num_frames] for chunk in chunks],
      "videos": lvs_labels.fingerprint(videos),
      "labels": lvs_labels.fingerprint(found),
    },
    default_classes=classes,
  )
  return LvsStream(chunks, truth_groups, spec)


def _list_videos(root):
  if not root.is_dir():
    raise UserError(f"--stream: there is no folder {root}")
  videos = sorted(root.glob(f"*{_VIDEO_SUFFIX}"))
  if not videos:
    raise UserError(f"--stream: {root} holds no {_VIDEO_SUFFIX} files")
  streams = {lvs_labels.stream_of(path.stem) for path in videos}
  if len(streams) > 1 or "" in streams:
    raise UserError(
      f"--stream: the chunks in {root} are to be named after one stream and "
      f"three digits, as driving1000.mp4; there is {videos[0].name}"
      + (f" and {videos[-1].name}" if len(videos) > 1 else "")
    )
  return videos


def _default_classes(video):
  stream = lvs_labels.stream_of(video.stem)
  known = STREAMS.get(stream)
  return known.classes if known else ""


def _truth_groups(classes):
  """Each member of the groups on its own, in the order of their labels.

  The order settles overlaps, so that grouping the truth afterwards gives the
  labels that grouping the instances gives.
  """
  groups = labels_lib.parse_groups(classes, lvs_labels.COCO_NAMES)
  members = itertools.chain.from_iterable(groups.members)
  return labels_lib.parse_groups(";".join(members), lvs_labels.COCO_NAMES)


def _probe(path):
  """The head of a video file, or a UserError."""
  try:
    with video_file.open_file(path) as (container, stream):
      head = Video(
        # Not every container counts its frames; then the packets are counted.
        num_frames=stream.frames
        or sum(1 for _ in video_file.demux(container, stream)),
        fps=float(stream.average_rate or 0),
        height=stream.codec_context.height,
        width=stream.codec_context.width,
      )
  except (av.FFmpegError, OSError) as error:
    raise UserError(
      f"--stream: {path} is not a video that can be read ({words(error)})"
    ) from None
  if not head.num_frames or not 0 < head.fps <= 1000:
    raise UserError(
      f"--stream: {path} says {head.num_frames} frames, {head.fps} a second"
    )
  if not 0 < min(head.height, head.width) <= max(head[2:]) <= base.MAX_SIDE:
    raise UserError(
      f"--stream: {path} has frames of {head.height}x{head.width} pixels"
    )
  return head

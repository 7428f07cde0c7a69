"""What goes in and out of a run.

decode_vs_student, resize_vs_student
    decoding a frame of an H.264 file, and resizing it to half the sides too,
    over the student's answer to that
read_share
    what of this the loop waits for, decoding ahead, over the same (below 0.1 at
    720x1280)
with_SINK_vs_without
    the whole loop with overlay, png_masks, mask_video, boxes or areas, over the
    loop without
"""

import dataclasses
import functools
import pathlib
import tempfile
import time

import imageio.v3 as iio
import numpy as np

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Case
from experiments.benchmarks.run import predict_ms
from ojd.run import build, runner
from ojd.run.config import RunConfig
from ojd.run.loop import Loop
from ojd.streams import base as streams
from ojd.streams import video

_NUM_FRAMES = 40
_CONFIG = RunConfig(
  system="frozen",
  init="bundled",
  teacher="mask_rcnn_tiny",
  overlay=False,
  eval_every=0,
)
SINKS = {
  "overlay": {"overlay": True},
  "png_masks": {"save_masks": "png"},
  "mask_video": {"save_masks": "video"},
  "boxes": {"boxes": True},
  "areas": {"areas": True},
}


@functools.cache
def _video(size):
  """An H.264 file of the synthetic street; its folder lives as long."""
  folder = tempfile.TemporaryDirectory()
  path = pathlib.Path(folder.name) / "street.mp4"
  write_video(path, "synthetic:street", size, _NUM_FRAMES)
  return folder, path


def write_video(path, uri, size, num_frames):
  """An H.264 file of a stream's first frames."""
  world = streams.open_stream(uri, *size)
  with iio.imopen(path, "w", plugin="pyav") as file:
    file.init_video_stream("libx264", fps=25)
    for sample in world.read():
      if sample.t == num_frames:
        break
      file.write_frame(sample.frame)


def _student_size(size):
  """Half of the file's, in steps that keep it wide enough."""
  return tuple(max(streams.MIN_SIDE, side // 2) for side in size)


def _config(size, **flags):
  _, path = _video(size)
  height, width = _student_size(size)
  flags |= {"stream": f"video:{path}", "height": height, "width": width}
  return dataclasses.replace(_CONFIG, **flags)


@functools.cache
def _executor(size):
  made = build.make_job(_config(size))
  return made, build.make_executor(made)


def _predict_ms(size):
  """Of the student alone on one frame of its size."""
  return predict_ms(*_executor(size))


def decode(at):
  """Decoding a frame, and nothing else, beside the student's answer."""
  _, path = _video(at.size)
  read = lambda: sum(1 for _ in video.decode(path))
  return _read("decode_vs_student", at, read, "decoded")


def decode_and_resize(at):
  """Decoding and resizing a frame beside the student's answer."""
  stream = build.open_stream(_config(at.size))
  read = lambda: sum(1 for _ in stream.read())
  return _read("resize_vs_student", at, read, "decoded and resized")


def _read(name, at, read, words):
  read()
  pairs = []
  for _ in range(at.repeats):
    begun = time.perf_counter()
    count = read()
    ms = 1e3 * (time.perf_counter() - begun) / count
    pairs.append((ms, _predict_ms(at.size)))
  rate = 1e3 / np.median(pairs, axis=0)[0]
  note = f"{rate:.0f} frames/s {words}, H.264 {at.size_text}"
  return measure.of_pairs(name, pairs, note)


def _run(size, **flags):
  """Milliseconds of a frame in the loop, and of waiting for it there."""
  made, executor = _executor(size)
  made = made._replace(config=_config(size, **flags))
  with tempfile.TemporaryDirectory() as folder:
    loop = Loop(
      *(made, pathlib.Path(folder), runner.make_source(made)),
      executor=executor,
    )
    begun = time.perf_counter()
    loop.run()
    spent = time.perf_counter() - begun
  num_frames = loop.stats.num_frames
  return 1e3 * spent / num_frames, 1e3 * loop.stages.seconds[
    "read"
  ] / num_frames


def read_share(at):
  """Waiting for decoded frames in the loop beside the student's answers."""
  size = at.size
  pairs = [(_run(size)[1], _predict_ms(size)) for _ in range(at.repeats)]
  height, width = _student_size(size)
  note = f"the loop waits for a frame of {at.size_text}, {height}x{width}"
  return measure.of_pairs("read_share", pairs, note)


def sink(name, at):
  """The whole loop with a sink beside the loop without."""
  pairs = [
    (_run(at.size, **SINKS[name])[0], _run(at.size)[0])
    for _ in range(at.repeats)
  ]
  rates = 1e3 / np.median(pairs, axis=0)
  note = f"{rates[0]:.0f} frames/s with it, {rates[1]:.0f} without"
  return measure.of_pairs(f"with_{name}_vs_without", pairs, note)


CASES = [
  Case(fn, measure.BIG)
  for fn in (
    *(decode, decode_and_resize, read_share),
    *(functools.partial(sink, name) for name in SINKS),
  )
]

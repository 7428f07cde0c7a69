"""Figures of what goes in and out of a run: `benchmark --what=io`."""

import dataclasses
import functools
import pathlib
import tempfile
import time

import imageio.v3 as iio
import numpy as np

from ojd.run import job, measure, runner
from ojd.run.config import RunConfig
from ojd.streams import base as streams
from ojd.streams import video_frames

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
def _compiled(size):
  made = job.make_job(_config(size))
  return made, job.compile_system(made.system, *_student_size(size), seed=0)


def _predict_ms(size):
  """Of the student alone on one frame of its size."""
  made, compiled = _compiled(size)
  frame = next(iter(made.stream.read())).frame
  state, begun = compiled.init(), time.perf_counter()
  for _ in range(_NUM_FRAMES):
    state, classes = compiled.predict(state, frame)
    np.asarray(classes)
  return 1e3 * (time.perf_counter() - begun) / _NUM_FRAMES


def decode(size, repeats):
  """Decoding a frame, and nothing else, beside the student's answer."""
  _, path = _video(size)
  take = lambda: sum(1 for _ in video_frames.decode(path))
  return _read_figure("decode_vs_student", size, repeats, take, "decoded")


def decode_and_resize(size, repeats):
  """Decoding and resizing a frame beside the student's answer."""
  stream = job.open_stream(_config(size))
  take = lambda: sum(1 for _ in stream.read())
  words = "decoded and resized"
  return _read_figure("resize_vs_student", size, repeats, take, words)


def _read_figure(name, size, repeats, take, words):
  take()
  pairs = []
  for _ in range(repeats):
    begun = time.perf_counter()
    count = take()
    ms = 1e3 * (time.perf_counter() - begun) / count
    pairs.append((ms, _predict_ms(size)))
  rate = 1e3 / np.median(pairs, axis=0)[0]
  note = f"{rate:.0f} frames/s {words}, H.264 {size[0]}x{size[1]}"
  return measure.figure(name, np.array(pairs), note)


def _run(size, **flags):
  """Milliseconds of a frame in the loop, and of waiting for it there."""
  made, compiled = _compiled(size)
  made = made._replace(config=_config(size, **flags))
  with tempfile.TemporaryDirectory() as folder:
    loop = runner.Loop(made, pathlib.Path(folder), compiled=compiled)
    begun = time.perf_counter()
    loop.run()
    spent = time.perf_counter() - begun
  num_frames = loop.stats.num_frames
  return 1e3 * spent / num_frames, 1e3 * loop.stages.seconds[
    "read"
  ] / num_frames


def read_share(size, repeats):
  """Waiting for decoded frames in the loop beside the student's answers."""
  pairs = [(_run(size)[1], _predict_ms(size)) for _ in range(repeats)]
  height, width = _student_size(size)
  note = f"the loop waits for a frame of {size[0]}x{size[1]}, {height}x{width}"
  return measure.figure("read_share", np.array(pairs), note)


def sink(name, size, repeats):
  """The whole loop with a sink beside the loop without."""
  pairs = [
    (_run(size, **SINKS[name])[0], _run(size)[0]) for _ in range(repeats)
  ]
  rates = 1e3 / np.median(pairs, axis=0)
  note = f"{rates[0]:.0f} frames/s with it, {rates[1]:.0f} without"
  return measure.figure(f"with_{name}_vs_without", np.array(pairs), note)


ALL = (
  *(decode, decode_and_resize, read_share),
  *(functools.partial(sink, name) for name in SINKS),
)

"""The host loop.

loop_overhead
    host time per frame beyond predict, over predict (below 0.1 at 720x1280)
"""

import json
import pathlib
import tempfile

import numpy as np
from PIL import Image

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Case
from ojd.run import build, runner
from ojd.run.config import RunConfig
from ojd.run.loop import Loop
from ojd.streams import base as streams


def run_loop(at):
  """The host loop with decoding and metrics against predict alone."""
  with tempfile.TemporaryDirectory() as folder:
    stream = pathlib.Path(folder) / "stream"
    _write_folder(stream, at.size, 4 * at.repeats)
    made = build.make_job(
      RunConfig(
        stream=f"folder:{stream}",
        teacher="ground_truth",
        system="frozen",
        init="random",
        overlay=False,
      )
    )
    executor = build.make_executor(made)
    pairs = [
      (
        _loop_ms(made, executor, pathlib.Path(folder)),
        predict_ms(made, executor),
      )
      for _ in range(at.repeats + 1)
    ]
  pairs = np.array(pairs[1:])  # the first warms up
  pairs[:, 0] -= pairs[:, 1]
  note = f"host time beyond predict, and predict, {at.size_text} JPEG"
  return measure.of_pairs("loop_overhead", pairs, note)


def _loop_ms(made, executor, path):
  """Of a frame in the host loop, from the stream to the metrics line."""
  loop = Loop(made, path, runner.make_source(made), executor=executor)
  loop.run()
  seconds = sum(s for n, s in loop.stages.seconds.items() if n != "compile")
  return 1e3 * seconds / loop.stats.num_frames


def predict_ms(made, executor):
  """Of a frame's answer alone, with nothing beside it."""
  frame = next(iter(made.stream.read())).frame
  executor.begin()
  spent = [
    measure.milliseconds(lambda: executor.predict(frame))
    for _ in range(made.stream.spec.num_frames)
  ]
  return np.mean(spent)


def _write_folder(path, size, num_frames):
  """A labelled folder of synthetic frames."""
  world = streams.open_stream("synthetic:street", *size)
  (path / "frames").mkdir(parents=True)
  (path / "masks").mkdir()
  for sample in world.read():
    if sample.t == num_frames:
      break
    name = f"{sample.t:04d}"
    Image.fromarray(sample.frame).save(path / "frames" / f"{name}.jpg")
    Image.fromarray(sample.truth).save(path / "masks" / f"{name}.png")
  classes = {str(i): n for i, n in enumerate(world.spec.class_names)}
  (path / "stream.json").write_text(json.dumps({"fps": 25, "classes": classes}))


CASES = [Case(run_loop, measure.BIG)]

"""The baseline of `fleet`, a stream in a process: compiles, waits, and runs.

    python -m experiments.benchmarks.fleet_baseline WORKDIR STREAM HEIGHT WIDTH

Prints `ready` once it has compiled and begins when a line comes; then prints
the clock at its beginning and its end, its frames and its key frames.
"""

import dataclasses
import sys
import time

from ojd.run import build, compilation, runner
from ojd.run.config import RunConfig

CONFIG = RunConfig(teacher="mask_rcnn_tiny", overlay=False, eval_every=0)


def main() -> None:
  """One run, as of `online_distill`."""
  workdir, stream, height, width = sys.argv[1:]
  compilation.enable_cache(compilation.default_cache())
  size = {"height": int(height), "width": int(width)}
  config = dataclasses.replace(CONFIG, stream=stream, workdir=workdir, **size)
  made = build.make_job(config)
  executor = build.make_executor(made)
  print("ready", flush=True)
  sys.stdin.readline()
  begun = time.monotonic()
  own = runner.Shared(make_job=lambda config: made, executor=executor)
  summary = runner.run(config, "a benchmark", shared=own).summary
  counts = summary["num_frames"], summary["num_key_frames"]
  print(begun, time.monotonic(), *counts, flush=True)


if __name__ == "__main__":
  main()

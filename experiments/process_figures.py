"""Figures of whole runs in processes of their own: start and memory."""

import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from ojd.run import measure, workdir

_GOAL_MB = 1500


def start(size, repeats):
  """A first and a second process with one compilation cache between them."""
  pairs = []
  for _ in range(max(1, repeats // 3)):
    with tempfile.TemporaryDirectory() as folder:
      cold, warm = (_first_frame_ms(folder, name, size) for name in "ab")
    pairs.append((warm, cold))
  note = f"to the first answer beyond imports, {size[0]}x{size[1]}"
  return measure.figure("warm_vs_cold_start", np.array(pairs), note)


def _first_frame_ms(folder, name, size):
  cache = {"XDG_CACHE_HOME": folder}
  summary = _run(pathlib.Path(folder) / name, size, 1, cache)
  return 1e3 * summary["first_frame_seconds"]


def memory(size, repeats):
  """The peak of a run that compiles, learns and predicts."""
  peaks = [_peak_mb(size, 24) for _ in range(max(1, repeats // 3))]
  note = f"{np.median(peaks):.0f} MB, 24 frames, {size[0]}x{size[1]}"
  return _of_ratios("memory_vs_1500_mb", np.array(peaks) / _GOAL_MB, note)


def memory_growth(size, repeats):
  """The peak of a long run beside that of a short one."""
  num_frames = 3000 if repeats > 3 else 600
  _peak_mb(size, 1)  # whatever is compiled, neither of the two compiles it
  short, long = (_peak_mb(size, n) for n in (num_frames // 10, num_frames))
  note = f"{short:.0f} MB, {long:.0f} MB; {size[0]}x{size[1]}"
  return _of_ratios("memory_growth", np.array([long / short]), note)


def _peak_mb(size, num_frames):
  with tempfile.TemporaryDirectory() as folder:
    summary = _run(pathlib.Path(folder) / "run", size, num_frames, {})
  return summary["peak_memory_mb"]


def _run(path, size, num_frames, environment):
  """The summary of a run of `online_distill` whose teacher costs nothing."""
  flags_of_run = (
    f"--workdir={path}",
    f"--height={size[0]}",
    f"--width={size[1]}",
    f"--num_frames={num_frames}",
    f"--stream=synthetic:street?num_frames={num_frames}",
    "--teacher=ground_truth",
    "--nooverlay",
  )
  subprocess.run(
    [sys.executable, "-m", "experiments.online_distill", *flags_of_run],
    env=os.environ | environment,
    check=True,
    capture_output=True,
  )
  return workdir.read_summary(path)


def _of_ratios(name, ratios, note):
  low, middle, high = np.percentile(ratios, [10, 50, 90])
  return measure.Figure(
    name, round(middle, 4), None, None, round((high - low) / middle, 4), note
  )

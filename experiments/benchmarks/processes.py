"""Whole runs of `online_distill` in processes of their own."""

import os
import pathlib
import subprocess
import sys
import tempfile

from ojd.run import workdir


def run(size, num_frames, environment=None):
  """The summary of a run whose teacher costs nothing."""
  with tempfile.TemporaryDirectory() as folder:
    command = [
      *(sys.executable, "-m", "experiments.online_distill"),
      f"--workdir={folder}/run",
      f"--height={size[0]}",
      f"--width={size[1]}",
      f"--num_frames={num_frames}",
      f"--stream=synthetic:street?num_frames={num_frames}",
      "--teacher=ground_truth",
      "--nooverlay",
    ]
    environment = os.environ | (environment or {})
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return workdir.read_summary(pathlib.Path(folder) / "run")

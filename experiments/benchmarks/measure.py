"""Fair timing: two things in turn, their medians and how far they spread."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ojd.run import workdir

BIG, MIDDLE, SMALL, TINY = (720, 1280), (256, 448), (192, 320), (96, 160)


class Unavailable(Exception):
  """What is to be compared cannot be had on this machine."""


class Setting(NamedTuple):
  """How something is measured."""

  size: tuple[int, int]  # of frames, (height, width)
  repeats: int  # pairs timed
  precision: str = "float32"  # of student and torch
  trace: pathlib.Path | None = None  # folder for traces of what is compared

  @property
  def size_text(self) -> str:
    """HxW."""
    return f"{self.size[0]}x{self.size[1]}"


class Result(NamedTuple):
  """One line of a benchmark; a ratio is ours over the opponent's."""

  name: str
  ratio: float
  ms: float | None  # None where it is not time that is compared
  opponent_ms: float | None
  spread: float  # (90th - 10th percentile of the ratios) / median
  note: str
  # Ours over what this device's matrix product and its copy reach.
  flop_share: float | None = None
  byte_share: float | None = None


class Case(NamedTuple):
  """A function of an entry and the frame size that it is measured at."""

  fn: Callable[[Setting], Result]
  size: tuple[int, int]
  is_long: bool = False  # left out of --smoke


def milliseconds(fn: Callable[[], Any]) -> float:
  """Of one call, until its arrays are computed."""
  start = time.perf_counter()
  jax.block_until_ready(fn())
  return 1e3 * (time.perf_counter() - start)


def compare(
  name: str,
  ours: Callable[[], Any],
  opponent: Callable[[], Any],
  *,
  at: Setting,
  note: str,
  repeats: int | None = None,
  ours_per_opponent: int = 1,
) -> Result:
  """Times both in turn, so that a noisy moment hits both.

  Args:
    name: of the result.
    ours: called without arguments; compiled and warmed up here.
    opponent: likewise.
    at: how it is measured.
    note: what was compared, in words; the frame size is added.
    repeats: pairs timed; those of `at` if None.
    ours_per_opponent: how many of the opponent's calls one of ours replaces.
  """
  jax.block_until_ready((ours(), opponent()))
  pairs = []
  for _ in range(repeats or at.repeats):
    mine = milliseconds(ours) / ours_per_opponent
    theirs = [milliseconds(opponent) for _ in range(ours_per_opponent)]
    pairs.append((mine, float(np.mean(theirs))))
  if at.trace is not None:
    with jax.profiler.trace(at.trace):
      jax.block_until_ready(ours())
  return of_pairs(name, pairs, f"{note}, {at.size_text}")


def of_pairs(name: str, pairs, note: str) -> Result:
  """The result of timed pairs, [N, 2] in ms: ours and the opponent's."""
  pairs = np.asarray(pairs)
  ms, opponent_ms = np.median(pairs, axis=0)
  result = of_ratios(name, pairs[:, 0] / pairs[:, 1], note)
  return result._replace(
    ms=round(float(ms), 3), opponent_ms=round(float(opponent_ms), 3)
  )


def of_ratios(name: str, ratios, note: str) -> Result:
  """The result where it is not time that is compared."""
  low, middle, high = np.percentile(ratios, [10, 50, 90])
  spread = float((high - low) / middle)
  return Result(
    name, round(float(middle), 4), None, None, round(spread, 4), note
  )


def run_in_process(
  size: tuple[int, int],
  num_frames: int,
  environment: dict[str, str] | None = None,
) -> dict[str, Any]:
  """The summary of `online_distill` with a teacher that costs nothing."""
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

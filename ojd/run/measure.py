"""Fair timing: two things in turn, their medians and how far they spread."""

import contextlib
import contextvars
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np


class Unavailable(Exception):
  """What is to be compared cannot be had on this machine."""


class Figure(NamedTuple):
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

  def as_json(self) -> dict[str, Any]:
    """For `benchmark --json`."""
    return self._asdict()


_trace_folder: contextvars.ContextVar[os.PathLike | None] = (
  contextvars.ContextVar("_trace_folder", default=None)
)


@contextlib.contextmanager
def traced(folder: os.PathLike | None) -> Iterator[None]:
  """Within it `compare` writes a trace of one call of ours into a folder."""
  token = _trace_folder.set(folder)
  try:
    yield
  finally:
    _trace_folder.reset(token)


def milliseconds(fn: Callable[[], Any]) -> float:
  """Of one call, until its arrays are there."""
  start = time.perf_counter()
  jax.block_until_ready(fn())
  return 1e3 * (time.perf_counter() - start)


def compare(
  name: str,
  ours: Callable[[], Any],
  opponent: Callable[[], Any],
  *,
  repeats: int,
  note: str,
  ours_per_opponent: int = 1,
) -> Figure:
  """Times both in turn, so that a noisy moment hits both.

  Args:
    name: of the figure.
    ours: called without arguments; compiled and warmed up here.
    opponent: likewise.
    repeats: pairs timed.
    note: what was compared, in words.
    ours_per_opponent: how many of the opponent's calls one of ours replaces.
  """
  jax.block_until_ready((ours(), opponent()))
  pairs = []
  for _ in range(repeats):
    mine = milliseconds(ours) / ours_per_opponent
    theirs = [milliseconds(opponent) for _ in range(ours_per_opponent)]
    pairs.append((mine, float(np.mean(theirs))))
  if _trace_folder.get() is not None:
    with jax.profiler.trace(_trace_folder.get()):
      jax.block_until_ready(ours())
  return figure(name, np.array(pairs), note)


def figure(name: str, pairs: np.ndarray, note: str) -> Figure:
  """The figure of timed pairs, [N, 2] in ms: ours and the opponent's."""
  ratios = pairs[:, 0] / pairs[:, 1]
  low, middle, high = np.percentile(ratios, [10, 50, 90])
  ms, opponent_ms = np.median(pairs, axis=0)
  return Figure(
    name,
    round(float(middle), 4),
    round(float(ms), 3),
    round(float(opponent_ms), 3),
    round(float((high - low) / middle), 4),
    note,
  )

"""Many cameras on one machine.

fleet_S_vs_processes
    a frame of one of S streams in one process, over one of as many processes
    that begin together (at most 1)
fleet_ray_vs_none
    the same of 8 streams on a Ray, over no Ray
fleet_recovery_vs_start
    from the kill of an actor until all its streams are farther than before,
    over the start of the fleet
"""

import contextlib
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from experiments.benchmarks import io, measure
from experiments.benchmarks.measure import Case
from ojd.fleet import folder, placement

NUM_STREAMS = (1, 2, 4, 8, 16, 32)
_ON_RAY = 8
_NUM_FRAMES, _FEW_FRAMES = 150, 40
_SCENES = ("street", "sports", "park", "night_fall")
# What a process of its own takes, as measured.
_PROCESS_BYTES = 900 << 20
_SECONDS = 1800


class _Ran(NamedTuple):
  """Some streams, from the first one's beginning to the last one's end."""

  seconds: float
  num_frames: int
  num_keys: int

  @property
  def ms(self) -> float:
    """Of a frame, all streams together."""
    return 1e3 * self.seconds / self.num_frames


@functools.cache
def _videos(size, num_frames):
  """An H.264 file of each scene; their folder lives as long."""
  place = tempfile.TemporaryDirectory()
  paths = []
  for scene in _SCENES:
    path = pathlib.Path(place.name) / f"{scene}.mp4"
    uri = f"synthetic:{scene}?seed=7"
    io.write_video(path, uri, size, num_frames)
    paths.append(path)
  return place, paths


def _streams(place, number, size, num_frames):
  """So many files, each scene in turn, under names of their own."""
  _, paths = _videos(size, num_frames)
  found = []
  for i in range(number):
    path = place / f"s{i:02d}.mp4"
    os.link(paths[i % len(paths)], path)
    found.append(path)
  return found


def _fleet(number, size, num_frames, *flags) -> _Ran:
  """All of them in one process, or on a Ray of its own."""
  with tempfile.TemporaryDirectory() as name:
    place = pathlib.Path(name)
    paths = _streams(place, number, size, num_frames)
    (place / "list.txt").write_text("\n".join(map(str, paths)))
    words = (f"--height={size[0]}", f"--width={size[1]}", "--eval_every=0")
    _check(
      subprocess.run(
        [
          *(sys.executable, "-m", "experiments.fleet"),
          *(f"--streams={place}/list.txt", f"--workdir={place}/fleet"),
          *("--student_store=none", *words, *flags),
        ],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
      )
    )
    found = json.loads((place / "fleet" / folder.SUMMARY).read_text())
  last = found["last_session"]
  return _Ran(last["seconds"], last["num_frames"], found["num_key_frames"])


def _processes(number, size, num_frames) -> _Ran:
  """Each in a process of its own, which begin together."""
  with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
    place = pathlib.Path(name)
    paths = _streams(place, number, size, num_frames)
    baselines = []
    for i, path in enumerate(paths):
      command = [sys.executable, "-m", "experiments.benchmarks.fleet_baseline"]
      command += [str(place / f"w{i}"), str(path), *map(str, size)]
      baseline = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
      )
      stack.callback(baseline.kill)
      baselines.append(baseline)
    for baseline in baselines:
      if baseline.stdout.readline().strip() != "ready":
        raise RuntimeError("a process alone did not get ready")
    for baseline in baselines:
      baseline.stdin.write("\n")
      baseline.stdin.flush()
    ends = [baseline.communicate()[0].split() for baseline in baselines]
  begun, ended, frames, keys = np.array(ends, float).T
  seconds = ended.max() - begun.min()
  return _Ran(seconds, int(frames.sum()), int(keys.sum()))


def _check(ended):
  if ended.returncode:
    raise RuntimeError(f"a fleet failed: {ended.stderr[-300:]}")


def against_processes(number, at):
  """A frame of one of many streams, beside as many processes.

  Or as many as memory holds: there a frame of the first is no faster.
  """
  fitting = min(number, placement.free_on_host() // _PROCESS_BYTES)
  num_frames = _NUM_FRAMES if at.repeats > 3 else _FEW_FRAMES
  pairs = []
  for _ in range(max(1, at.repeats // 3)):
    ours = _fleet(number, at.size, num_frames)
    theirs = _processes(fitting, at.size, num_frames)
    pairs.append((ours.ms, theirs.ms))
  rates = 1e3 / np.median(pairs, axis=0)
  note = (
    f"{rates[0]:.1f} frames/s of {number} streams, {rates[1]:.1f} in "
    f"{fitting} processes; {ours.num_keys} and {theirs.num_keys} teacher "
    f"calls; {num_frames} frames each, {at.size_text}"
  )
  return measure.of_pairs(f"fleet_{number}_vs_processes", pairs, note)


def on_ray(at):
  """A frame of one of some streams on a Ray of its own, beside no Ray."""
  # More than the short run's, whose time is taken off.
  num_frames = _NUM_FRAMES if at.repeats > 3 else 3 * _FEW_FRAMES
  pairs = []
  for _ in range(max(1, at.repeats // 3)):
    # The Ray's clock begins before its actors do: what is the same for a
    # short and a long run is no part of a frame.
    short, long = (
      _fleet(_ON_RAY, at.size, n, "--ray=local")
      for n in (_FEW_FRAMES, num_frames)
    )
    spent = long.seconds - short.seconds
    ms = 1e3 * spent / (long.num_frames - short.num_frames)
    pairs.append((ms, _fleet(_ON_RAY, at.size, num_frames).ms))
  note = f"{_ON_RAY} streams, {at.size_text}"
  return measure.of_pairs("fleet_ray_vs_none", pairs, note)


def recovery(at):
  """From the kill of an actor until all its streams are farther than then."""
  pairs = [_kill_one(at.size) for _ in range(max(1, at.repeats // 3))]
  note = "one of two Ray actors that run two streams each, over the start of "
  note += f"all; {at.size_text}"
  return measure.of_pairs("fleet_recovery_vs_start", pairs, note)


def _kill_one(size):
  """Milliseconds until all go on, and until all had begun."""
  with tempfile.TemporaryDirectory() as name:
    place = pathlib.Path(name)
    paths = _streams(place, 4, size, _NUM_FRAMES)
    (place / "list.txt").write_text("\n".join(map(str, paths)))
    command = [sys.executable, "-m", "experiments.fleet", "--ray=local"]
    command += [f"--streams={place}/list.txt", f"--workdir={place}/fleet"]
    command += [f"--height={size[0]}", f"--width={size[1]}", "--actors=2"]
    count = lambda: [
      file.read_bytes().count(b"\n")
      for file in sorted(place.glob("fleet/streams/*/metrics.jsonl"))
    ]
    begun = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as fleet:
      try:
        _wait(lambda: len(count()) == 4 and min(count()) > 0, fleet)
        start = time.monotonic() - begun
        _wait(lambda: min(count()) > _FEW_FRAMES, fleet)
        before, killed = count(), time.monotonic()
        os.kill(_actor(), signal.SIGKILL)
        is_ahead = lambda: all(
          now > min(then, _NUM_FRAMES - 1)
          for now, then in zip(count(), before, strict=True)
        )
        _wait(is_ahead, fleet)
        back = time.monotonic() - killed
      finally:
        fleet.terminate()
  return 1e3 * back, 1e3 * start


def _wait(is_there, process):
  while not is_there():
    if process.poll() is not None:
      raise RuntimeError("the fleet ended before its time")
    time.sleep(0.05)


def _actor():
  """The process of an actor that runs streams."""
  for place in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
      if (place / "cmdline").read_bytes().startswith(b"ray::StreamWorker"):
        return int(place.name)
  raise RuntimeError("no actor is there")


CASES = [
  Case(fn, measure.MIDDLE, is_long=bool(i))
  for i, fn in enumerate(
    [
      *(functools.partial(against_processes, n) for n in NUM_STREAMS),
      *(on_ray, recovery),
    ]
  )
]

"""A recorded run's requests to its teacher, which a simulated fleet replays.

A trace is read from a finished workdir, or from a file of a few kB made from
one. It leaves out the first key frame, at which programs are called for the
first time, and the last one, whose successor is unknown.
"""

import pathlib
import urllib.parse
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from ojd.errors import UserError
from ojd.report import run_results, values

_MAX_FILE = 1 << 24  # bytes
_FROM_ROWS = (
  *("num_updates", "ms_teacher", "ms_learn"),
  *("miou_before", "miou_after", "stride"),
)
_INTEGERS = ("interval", "stride", "num_updates")


class KeyFrames(NamedTuple):
  """The key frames of a run in their order; N of them."""

  interval: np.ndarray  # [N] int64, frames to the next key frame
  stride: np.ndarray  # [N] int64, frames; later ones are at its multiples
  num_updates: np.ndarray  # [N] int64
  ms_teacher: np.ndarray  # [N] float64, of the frame alone
  ms_learn: np.ndarray  # [N] float64
  miou_before: np.ndarray  # [N] float64, with the teacher, 0..1
  miou_after: np.ndarray  # [N] float64
  miou_next: np.ndarray  # [N] float64, before the next key frame is learned


class Trace(NamedTuple):
  """The part of a run that the simulation needs."""

  fps: float  # frames a second of its stream
  ms_predict: float  # of an average frame
  keys: KeyFrames
  source: dict[str, Any]  # what it is of, for people


class _File(msgspec.Struct):
  """The content of a file."""

  fps: float
  ms_predict: float
  source: dict[str, Any]
  keys: dict[str, list[float]]
  format: Literal[1] = 1


def read(path: pathlib.Path, fps: float | None = None) -> Trace:
  """The trace of a finished workdir, or that of a file of `write`.

  Args:
    path: of the folder or the file.
    fps: of the stream, for a run that does not say it.
  """
  return _read_file(path) if path.is_file() else _read_run(path, fps)


def write(trace: Trace, path: pathlib.Path) -> None:
  """Writes the file that `read` takes instead of the workdir."""
  columns = {
    name: np.round(column, 4).tolist()
    for name, column in trace.keys._asdict().items()
  }
  content = _File(trace.fps, trace.ms_predict, trace.source, columns)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(content) + b"\n")
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror}") from None


def _read_file(path):
  try:
    content = msgspec.json.decode(path.read_bytes()[:_MAX_FILE], type=_File)
    keys = _key_frames(content.keys)
  except (OSError, KeyError, msgspec.MsgspecError):
    keys = None
  is_sound = (
    keys is not None
    and len({len(column) for column in keys}) == 1
    and content.fps > 0 <= content.ms_predict
    and min(*keys.interval, *keys.stride, 1) > 0
    and all((column >= 0).all() for column in keys)
    and len(keys.interval) > 0
  )
  if not is_sound:
    raise UserError(
      f"{path} is no trace; --runs takes workdirs, and files of --export_traces"
    )
  return Trace(content.fps, content.ms_predict, keys, content.source)


def _key_frames(columns):
  kind = lambda name: np.int64 if name in _INTEGERS else np.float64
  return KeyFrames(
    *(np.asarray(columns[name], kind(name)) for name in KeyFrames._fields)
  )


def _read_run(path, fps):
  run_results.check(path)
  run = run_results.read(path)
  flags = run.config["flags"]
  if not run.summary.get("finished"):
    raise UserError(f"{path}: the run is not finished; the same command does")
  if flags.get("async_teacher") or flags.get("link"):
    raise UserError(
      f"{path}: its student did not wait for labels; record a run without "
      "--async_teacher and --link"
    )
  if run.summary.get("num_key_frames") and (
    run.summary.get("speedup_measured") is None
  ):
    raise UserError(
      f"{path}: its teacher was free, there is no time to plan with; record a "
      "run with another --teacher"
    )
  keys = key_rows(run.rows, _FROM_ROWS, path)[1:]
  if len(keys) < 2:
    raise UserError(
      f"{path}: three key frames at least are needed, the first of which only "
      "warms up; play more frames"
    )
  columns = {name: [row[name] for row in keys[:-1]] for name in _FROM_ROWS}
  columns["interval"] = np.diff([row["t"] for row in keys])
  columns["miou_next"] = [row["miou_before"] for row in keys[1:]]
  spent = [row.get("ms_predict") for row in run.rows]
  spent = [ms for ms in spent if values.is_number(ms)]
  return Trace(
    fps=frame_rate(run.config, path, fps),
    ms_predict=float(np.mean(spent)) if spent else 0.0,
    keys=_key_frames(columns),
    source=_source(run),
  )


def _source(run):
  named = ("stream", "teacher", "system", "model", "height", "width")
  source = {name: run.config["flags"].get(name) for name in named}
  source |= {name: run.config.get(name) for name in ("devices", "versions")}
  source["num_frames"] = run.summary.get("num_frames")
  source["miou"] = values.mapping(run.summary, "miou").get("mean")
  return source


def frame_rate(
  config: dict[str, Any], path: pathlib.Path, default: float | None
) -> float:
  """Frames a second of a run's stream; a UserError where it is not known.

  Args:
    config: the content of config.json.
    path: of the run, for errors.
    default: taken where the config is silent.
  """
  identity, every = values.mapping(config, "stream"), 1
  while identity.get("kind") == "window":
    every *= identity.get("every", 1)
    identity = values.mapping(identity, "of")
  options = str(identity.get("stream", "")).partition("?")[2]
  recorded = dict(urllib.parse.parse_qsl(options)).get("fps")
  fps = float(recorded) / every if recorded else default
  if fps is None:
    raise UserError(
      f"{path}: its files do not say how many frames a second its stream has; "
      "give --plan_fps"
    )
  return fps


def key_rows(
  rows: list[dict[str, Any]], needed: Iterable[str], path: pathlib.Path
) -> list[dict[str, Any]]:
  """The lines of key frames; a UserError where one lacks a number."""
  keys = [row for row in rows if row.get("is_key")]
  for row in keys:
    lacking = [n for n in needed if not values.is_number(row.get(n))]
    if lacking:
      raise UserError(
        f"{path}: its key frame {row['t']} has no {lacking[0]}; record a run "
        "that asks a teacher which takes time, without interruption"
      )
  return keys


def with_times(
  trace: Trace, teacher_ms: float | None, device_speed: float
) -> Trace:
  """The same key frames with the times of other machines.

  Args:
    trace: as it was recorded.
    teacher_ms: of a frame alone, whatever is on it; None: as recorded.
    device_speed: of what predicts and learns, over that of the recording.
  """
  keys = trace.keys
  keys = keys._replace(ms_learn=keys.ms_learn / device_speed)
  if teacher_ms is not None:
    keys = keys._replace(ms_teacher=np.full_like(keys.ms_teacher, teacher_ms))
  return trace._replace(ms_predict=trace.ms_predict / device_speed, keys=keys)

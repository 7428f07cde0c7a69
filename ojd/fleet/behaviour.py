"""How a recorded run asked its teacher, as a simulated fleet plays it.

Read from a finished workdir, or from a file of a few kB that was made of one.
The first key frame is left out: programs are called for the first time there,
and a stream has it once. So is the last, whose next is not known.
"""

import json
import pathlib
import urllib.parse
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ojd.errors import UserError
from ojd.run import report, report_text

_FORMAT = 1  # of the file
_MAX_FILE = 1 << 24  # bytes
_OF_LINE = (
  "num_updates",
  "ms_teacher",
  "ms_learn",
  "miou_before",
  "miou_after",
)
_WHOLE = ("interval", "stride", "num_updates")


class KeyFrames(NamedTuple):
  """Those of a run in their order; N of them."""

  interval: np.ndarray  # [N] int64, frames to the next key frame
  stride: np.ndarray  # [N] int64, frames; later ones are at its multiples
  num_updates: np.ndarray  # [N] int64
  ms_teacher: np.ndarray  # [N] float64, of the frame alone
  ms_learn: np.ndarray  # [N] float64
  miou_before: np.ndarray  # [N] float64, with the teacher, 0..1
  miou_after: np.ndarray  # [N] float64
  miou_next: np.ndarray  # [N] float64, before the next key frame is learnt


class Behaviour(NamedTuple):
  """One run as the simulation needs it."""

  fps: float  # frames a second of its stream
  ms_predict: float  # of an average frame
  keys: KeyFrames
  source: dict[str, Any]  # what it is of, for people


def read(path: pathlib.Path, fps: float | None = None) -> Behaviour:
  """The behaviour of a finished workdir, or that of a file of `write`.

  Args:
    path: of the folder or the file.
    fps: of the stream, for a run that does not say it.
  """
  return _read_file(path) if path.is_file() else _read_run(path, fps)


def write(behaviour: Behaviour, path: pathlib.Path) -> None:
  """Writes the file that `read` takes in the place of the workdir."""
  columns = {
    name: np.round(column, 4).tolist()
    for name, column in behaviour.keys._asdict().items()
  }
  content = {"format": _FORMAT, **behaviour._asdict(), "keys": columns}
  # A line a column: small, and still to be looked at.
  rows = [f'"{n}": {json.dumps(x)}' for n, x in content.items() if n != "keys"]
  keys = ",\n".join(f'"{n}": {json.dumps(x)}' for n, x in columns.items())
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{" + ",\n".join([*rows, f'"keys": {{\n{keys}}}']) + "}\n")
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror}") from None


def elsewhere(
  behaviour: Behaviour, teacher_ms: float | None, device_speed: float
) -> Behaviour:
  """The same key frames with the times of other machines.

  Args:
    behaviour: as it was recorded.
    teacher_ms: of a frame alone, whatever is on it; None: as recorded.
    device_speed: of what answers and learns, over that of the recording.
  """
  keys = behaviour.keys
  keys = keys._replace(ms_learn=keys.ms_learn / device_speed)
  if teacher_ms is not None:
    keys = keys._replace(ms_teacher=np.full_like(keys.ms_teacher, teacher_ms))
  return behaviour._replace(
    ms_predict=behaviour.ms_predict / device_speed, keys=keys
  )


def frame_rate(
  config: dict[str, Any], path: pathlib.Path, otherwise: float | None
) -> float:
  """Frames a second of a run's stream; a UserError where nobody says it.

  Args:
    config: the content of config.json.
    path: of the run, for errors.
    otherwise: taken where the config is silent.
  """
  identity, every = report_text.mapping(config, "stream"), 1
  while identity.get("kind") == "window":
    every *= identity.get("every", 1)
    identity = report_text.mapping(identity, "of")
  options = str(identity.get("stream", "")).partition("?")[2]
  told = dict(urllib.parse.parse_qsl(options)).get("fps")
  fps = float(told) / every if told else otherwise
  if fps is None:
    raise UserError(
      f"{path}: its files do not say how many frames a second its stream has; "
      "give --plan_fps"
    )
  return fps


def answered(
  rows: list[dict[str, Any]], needed: Iterable[str], path: pathlib.Path
) -> list[dict[str, Any]]:
  """The lines of key frames; a UserError where one lacks a number."""
  keys = [row for row in rows if row.get("is_key")]
  for row in keys:
    lacking = [n for n in needed if not report_text.is_number(row.get(n))]
    if lacking:
      raise UserError(
        f"{path}: its key frame {row['t']} has no {lacking[0]}; record a run "
        "that asks a teacher which takes time, without interruption"
      )
  return keys


def _key_frames(columns):
  kinds = {name: np.int64 for name in _WHOLE}
  return KeyFrames(
    **{
      name: np.asarray(columns[name], kinds.get(name, np.float64))
      for name in KeyFrames._fields
    }
  )


def _read_run(path, fps):
  report.check(path)
  run = report.read(path)
  flags = run.config["flags"]
  if not run.summary.get("finished"):
    raise UserError(f"{path}: the run is not finished; the same command does")
  if flags.get("async_teacher") or flags.get("link"):
    raise UserError(
      f"{path}: its students waited for no answer; record a run without "
      "--async_teacher and --link"
    )
  if run.summary.get("num_key_frames") and (
    run.summary.get("speedup_measured") is None
  ):
    raise UserError(
      f"{path}: its teacher was free, there is no time to plan with; record a "
      "run with another --teacher"
    )
  told = ("stream", "teacher", "system", "model", "height", "width")
  source = {name: flags.get(name) for name in told}
  source |= {n: run.config.get(n) for n in ("devices", "versions")}
  source["num_frames"] = run.summary.get("num_frames")
  source["miou"] = report_text.mapping(run.summary, "miou").get("mean")
  keys = answered(run.rows, (*_OF_LINE, "stride"), path)[1:]
  if len(keys) < 2:
    raise UserError(
      f"{path}: three key frames at least are needed, the first of which only "
      "warms up; play more frames"
    )
  columns = {n: [row[n] for row in keys[:-1]] for n in (*_OF_LINE, "stride")}
  columns["interval"] = np.diff([row["t"] for row in keys])
  columns["miou_next"] = [row["miou_before"] for row in keys[1:]]
  return Behaviour(
    fps=frame_rate(run.config, path, fps),
    ms_predict=_ms_predict(run.rows),
    keys=_key_frames(columns),
    source=source,
  )


def _ms_predict(rows):
  spent = [row.get("ms_predict") for row in rows]
  spent = [ms for ms in spent if report_text.is_number(ms)]
  return float(np.mean(spent)) if spent else 0.0


def _read_file(path):
  try:
    content = json.loads(path.read_bytes()[:_MAX_FILE])
    known = content["format"] == _FORMAT
    keys = _key_frames(content["keys"])
    fields = {n: content[n] for n in Behaviour._fields}
    behaviour = Behaviour(**fields)._replace(keys=keys)
    sizes = {len(column) for column in keys}
    is_sound = known and len(sizes) == 1 and 0 not in sizes
    is_sound = is_sound and behaviour.fps > 0 <= behaviour.ms_predict
    is_sound = is_sound and min(keys.interval.min(), keys.stride.min()) > 0
    is_sound = is_sound and all((x >= 0).all() for x in keys)
  except (OSError, ValueError, KeyError, TypeError):
    is_sound = False
  if not is_sound:
    raise UserError(
      f"{path} is no recorded behaviour; --runs takes workdirs, and files of "
      "--export_behaviour"
    )
  return behaviour

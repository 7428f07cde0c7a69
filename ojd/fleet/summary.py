"""A fleet in numbers: summary.json."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from ojd.fleet import folder, handle
from ojd.fleet.handle import StreamHandle
from ojd.fleet.teachers import Counts
from ojd.run import workdir


class Account(NamedTuple):
  """What all streams together took, the last time that they ran."""

  seconds: float  # of the clock, compilation apart
  num_frames: int
  teachers: Counts
  num_granted: int = 0  # calls of a teacher with a limited rate
  num_deferred: int = 0


def write(
  path: pathlib.Path, handles: Sequence[StreamHandle], account: Account
) -> dict[str, Any]:
  """Writes the summary of the fleet in a folder, and returns it."""
  content = summarize(handles, account)
  if not account.num_frames:
    # Nothing ran now: what it took then is still what it took.
    before = workdir.read_json(path / folder.SUMMARY) or {}
    content["last_session"] = before.get(
      "last_session", content["last_session"]
    )
  workdir.write_json(path / folder.SUMMARY, content)
  return content


def summarize(
  handles: Sequence[StreamHandle], account: Account
) -> dict[str, Any]:
  """The content of summary.json."""
  teachers, seconds = account.teachers, account.seconds
  per_second = lambda x: round(x / seconds, 3) if seconds else 0.0
  total = lambda name: sum((one.summary or {}).get(name, 0) for one in handles)
  return {
    "finished": all(one.state == handle.DONE for one in handles),
    "num_streams": len(handles),
    "states": {
      state: sum(one.state == state for one in handles)
      for state in (handle.DONE, handle.STOPPED, handle.DEAD)
    },
    "num_frames": total("num_frames"),
    "num_key_frames": total("num_key_frames"),
    "num_updates": total("num_updates"),
    "deferred": total("deferred"),
    "miou": mean_miou(handles),
    "last_session": {
      "seconds": round(seconds, 3),
      "num_frames": account.num_frames,
      "fps": per_second(account.num_frames),
      "teachers": teachers._asdict(),
      "teacher_calls_per_second": per_second(teachers.num_answers),
      "granted": account.num_granted,
      "deferred": account.num_deferred,
    },
    "streams": {one.name: _of_stream(one) for one in handles},
  }


def mean_miou(handles: Sequence[StreamHandle]) -> float | None:
  """Of the streams that were evaluated, each counting once."""
  mious = [one.summary["miou"]["mean"] for one in handles if one.summary]
  known = [miou for miou in mious if miou is not None]
  return sum(known) / len(known) if known else None


def _of_stream(one):
  found: dict[str, Any] = {"state": one.state}
  if one.problem:
    found["problem"] = one.problem
  if one.started_from:
    found["started_from"] = one.started_from
  if one.summary:
    names = ("num_frames", "num_key_frames", "num_updates", "deferred", "fps")
    found |= {name: one.summary.get(name, 0) for name in names}
    found["miou"] = one.summary["miou"]["mean"]
  return found


def in_words(one: StreamHandle) -> str:
  """A stream that has ended, in a line."""
  if one.state == handle.DEAD:
    return one.problem
  found = one.summary
  mean = found["miou"]["mean"]
  return (
    f"{one.state}, {found['num_frames']} frames, "
    f"{found['num_key_frames']} key frames, "
    + (f"{found['deferred']} deferred, " if found.get("deferred") else "")
    + f"{found['num_updates']} updates, mIoU "
    + ("not measured" if mean is None else f"{mean:.3f}")
  )

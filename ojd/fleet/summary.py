"""A fleet in numbers: summary.json."""

import pathlib
from typing import Any, NamedTuple

from ojd.fleet import folder, member
from ojd.fleet.member import Member
from ojd.fleet.teachers import Counts
from ojd.run import workdir


class Account(NamedTuple):
  """What all streams together took, the last time that they ran."""

  seconds: float  # of the clock, compilation apart
  num_frames: int
  teachers: Counts
  num_granted: int  # calls of a teacher whose calls were shared out
  num_deferred: int


def write(
  path: pathlib.Path, members: list[Member], account: Account
) -> dict[str, Any]:
  """Writes the summary of the fleet in a folder, and returns it."""
  content = summarize(members, account)
  if not account.num_frames:
    # Nothing ran now: what it took then is still what it took.
    before = workdir.read_json(path / folder.SUMMARY) or {}
    content["last_session"] = before.get(
      "last_session", content["last_session"]
    )
  workdir.write_json(path / folder.SUMMARY, content)
  return content


def summarize(members: list[Member], account: Account) -> dict[str, Any]:
  """The content of summary.json."""
  teachers = account.teachers
  seconds = account.seconds
  return {
    "finished": all(one.state == member.DONE for one in members),
    "num_streams": len(members),
    "states": {
      state: sum(one.state == state for one in members)
      for state in (member.DONE, member.STOPPED, member.DEAD)
    },
    "num_frames": _sum(members, "num_frames"),
    "num_key_frames": _sum(members, "num_key_frames"),
    "num_updates": _sum(members, "num_updates"),
    "deferred": _sum(members, "deferred"),
    "miou": mean_miou(members),
    "last_session": {
      "seconds": round(seconds, 3),
      "num_frames": account.num_frames,
      "fps": round(account.num_frames / seconds, 3) if seconds else 0.0,
      "teachers": teachers._asdict(),
      "teacher_calls_per_second": (
        round(teachers.num_answers / seconds, 3) if seconds else 0.0
      ),
      "granted": account.num_granted,
      "deferred": account.num_deferred,
    },
    "streams": {one.name: _of_stream(one) for one in members},
  }


def _sum(members, name):
  return sum((one.summary or {}).get(name, 0) for one in members)


def mean_miou(members: list[Member]) -> float | None:
  """Of the streams that were judged, each counting once."""
  found = [
    one.summary["miou"]["mean"]
    for one in members
    if one.summary and one.summary["miou"]["mean"] is not None
  ]
  return sum(found) / len(found) if found else None


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


def in_words(one: Member) -> str:
  """A stream that has ended, in a line."""
  if one.state == member.DEAD:
    return one.problem
  found = one.summary
  mean = found["miou"]["mean"]
  return (
    f"{one.state}, {found['num_frames']} frames, "
    f"{found['num_key_frames']} key frames, "
    + (f"{found['deferred']} put off, " if found.get("deferred") else "")
    + f"{found['num_updates']} updates, mIoU "
    + ("not measured" if mean is None else f"{mean:.3f}")
  )

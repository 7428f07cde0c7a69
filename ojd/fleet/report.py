"""The page about a fleet: its streams, and who had the teacher."""

import pathlib
from typing import Any

from ojd.errors import UserError
from ojd.fleet import folder
from ojd.run import report_index, workdir
from ojd.run import report_text as text


def write(path: pathlib.Path) -> pathlib.Path:
  """Writes the page of the fleet in a folder; returns where it is."""
  found = workdir.read_json(path / folder.SUMMARY)
  if found is None:
    raise UserError(f"{path} holds no fleet that has run")
  entries = []
  for name in found["streams"]:
    place = path / folder.STREAMS / name
    if (place / workdir.SUMMARY).exists():
      entries.append(report_index.read_one(place))
  target = path / folder.REPORT / "index.html"
  report_index.write(entries, target, _head(found), title="Fleet")
  return target


def _head(found: dict[str, Any]) -> str:
  """What is to be said of all streams."""
  last, states = found["last_session"], found["states"]
  teachers = last["teachers"]
  batches = teachers["num_batches"]
  per_batch = teachers["num_answers"] / batches if batches else None
  seconds = last["seconds"] * max(teachers["num_teachers"], 1)
  busy = teachers["seconds"] / seconds if seconds else None
  tiles = [
    ("streams", text.integer(found["num_streams"])),
    ("done", text.integer(states["done"])),
    ("mean mIoU", text.fixed(found["miou"], 3)),
    ("frames", text.integer(found["num_frames"])),
    ("frames/s, all", text.fixed(last["fps"], 1)),
    ("key frames", text.integer(found["num_key_frames"])),
    ("put off", text.integer(found["deferred"])),
    ("teacher calls/s", text.fixed(last["teacher_calls_per_second"], 2)),
    ("frames a call", text.fixed(per_batch, 2)),
    ("teacher busy", text.percent(busy)),
  ]
  boxes = "".join(
    f'<div class="tile"><span class="soft small">{name}</span>'
    f"<b>{value}</b></div>"
    for name, value in tiles
  )
  return f'<div class="tiles">{boxes}</div>{_dead(found)}{_started(found)}'


def _dead(found):
  rows = [
    f"<li>{text.escape(name)}: {text.escape(one.get('problem', ''))}</li>"
    for name, one in found["streams"].items()
    if one["state"] == "dead"
  ]
  return f'<h2>Dead</h2><ul class="warn">{"".join(rows)}</ul>' if rows else ""


def _started(found):
  rows = [
    f"<li>{text.escape(name)} from that of "
    f"{text.escape(one['started_from'])}</li>"
    for name, one in found["streams"].items()
    if "started_from" in one
  ]
  if not rows:
    return ""
  return f"<h2>Began with another's student</h2><ul>{''.join(rows)}</ul>"

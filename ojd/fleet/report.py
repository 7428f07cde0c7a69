"""The page about a fleet: its streams, and their calls of the teacher."""

import pathlib
from typing import Any

from ojd.errors import UserError
from ojd.fleet import folder
from ojd.report import runs_page
from ojd.run import workdir


def write(path: pathlib.Path) -> pathlib.Path:
  """Writes the page of the fleet in a folder; returns its path."""
  found = workdir.read_json(path / folder.SUMMARY)
  if found is None:
    raise UserError(f"{path} holds no fleet that has run")
  places = [path / folder.STREAMS / name for name in found["streams"]]
  entries = [
    runs_page.read_one(place)
    for place in places
    if (place / workdir.SUMMARY).exists()
  ]
  target = path / folder.REPORT / "index.html"
  runs_page.write(entries, target, "fleet.html", **_content(found))
  return target


def _content(found: dict[str, Any]) -> dict[str, Any]:
  """The content of the page."""
  session, streams = found["last_session"], found["streams"].items()
  teachers = session["teachers"]
  batches = teachers["num_batches"]
  seconds = session["seconds"] * max(teachers["num_teachers"], 1)
  return {
    "fleet": found,
    "frames_per_call": teachers["num_answers"] / batches if batches else None,
    "teacher_busy": teachers["seconds"] / seconds if seconds else None,
    "dead": [
      (name, one.get("problem", ""))
      for name, one in streams
      if one["state"] == "dead"
    ],
    "started_from": [
      (name, one["started_from"])
      for name, one in streams
      if "started_from" in one
    ],
  }

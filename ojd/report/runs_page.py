"""A page about several runs: a line each, and their accuracy in one chart."""

import os
import pathlib
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ojd.errors import UserError
from ojd.formats import run_files
from ojd.report import charts, pages, run_page, run_results, values

# What has a column of its own, or says nothing of the method.
_NOT_FLAGS = {"workdir", "stream", "system"}
_NUMBERS = (
  *("num_frames", "key_frame_fraction", "num_updates", "fps"),
  *("speedup_measured", "speedup_paper_model"),
)


class Entry(NamedTuple):
  """A run in few numbers."""

  workdir: pathlib.Path
  flags: dict[str, Any]
  summary: dict[str, Any]
  curve: charts.Curve | None
  problem: str  # why it cannot be read, else ""


def find(folder: pathlib.Path) -> list[pathlib.Path]:
  """The folder itself where it is a run's, else the runs in it.

  What else lies in it is passed over; a UserError where there is no run.
  """
  is_run = lambda path: (path / run_files.CONFIG).is_file()
  if not folder.is_dir():
    raise UserError(f"{folder}: there is no such folder")
  if is_run(folder):
    return [folder]
  try:
    found = sorted(path for path in folder.iterdir() if is_run(path))
  except OSError as error:
    raise UserError(f"{folder}: {error.strerror}") from None
  if not found:
    raise UserError(
      f"{folder} is no workdir: neither it nor a folder in it has a config.json"
    )
  return found


def rewrite(
  workdirs: Iterable[pathlib.Path],
  note_fn: Callable[[str], None] = lambda note: None,
) -> list[Entry]:
  """Writes the report of each run again; what is damaged is kept as a problem.

  Args:
    workdirs: of the runs.
    note_fn: called with each page written, and why one was not.
  """
  entries = []
  for path in workdirs:
    try:
      entries.append(rewrite_one(path))
    except UserError as error:
      entries.append(Entry(path, {}, {}, None, str(error)))
      note_fn(f"left out: {error}")
    else:
      note_fn(str(path / run_files.REPORT / "index.html"))
  return entries


def read_one(workdir: pathlib.Path) -> Entry:
  """A run as its page shows it, its own report left as it is."""
  try:
    run_results.check(workdir)
    return _entry(run_results.read(workdir))
  except UserError as error:
    return Entry(workdir, {}, {}, None, str(error))


def rewrite_one(workdir: pathlib.Path) -> Entry:
  """Writes the report of a run; a UserError where it cannot be."""
  run_results.check(workdir)
  run = run_results.read(workdir)
  try:
    run_page.write_run(run)
  except OSError as error:
    raise UserError(
      f"{workdir}: its report cannot be written: {error.strerror}"
    ) from None
  return _entry(run)


def _entry(run):
  curve = charts.curve(charts.read_series(run.rows))
  return Entry(run.workdir, run.flags, run.summary, curve, "")


def write(
  entries: list[Entry],
  target: pathlib.Path,
  template: str = "runs.html",
  **content: Any,
) -> None:
  """Writes the page; what else is there under that name is not touched.

  Args:
    entries: of the runs.
    target: the file.
    template: runs.html, or one that extends it.
    content: names of that template.
  """
  try:
    is_taken = target.exists() and not pages.is_ours(target)
    if not is_taken:
      content |= _content(entries, target.parent)
      pages.write(target, template, **content)
  except OSError as error:
    raise UserError(f"{target} cannot be written: {error.strerror}") from None
  if is_taken:
    raise UserError(f"{target} is there and is no index of runs")


def changed_flags(all_flags: list[dict[str, Any]]) -> list[str]:
  """Names of the flags in which runs differ, in the order of the first."""
  names = dict.fromkeys(name for flags in all_flags for name in flags)
  texts = lambda name: {values.plain(flags.get(name)) for flags in all_flags}
  return [
    name for name in names if name not in _NOT_FLAGS and len(texts(name)) > 1
  ]


def _content(entries, folder):
  """All that runs.html has names for."""
  changed = changed_flags([e.flags for e in entries if not e.problem])
  drawn = [e for e in entries if e.curve is not None and len(e.curve.t)]
  drawn = drawn[: charts.MAX_CURVES]
  colors = {e.workdir: f"var(--run-{i})" for i, e in enumerate(drawn)}
  draw = lambda width, prefix: charts.draw_curves(
    [entry.curve for entry in drawn], width=width, prefix=prefix
  )
  return {
    "changed": changed,
    "rows": [
      {**_row(entry, folder, changed), "color": colors.get(entry.workdir)}
      for entry in entries
    ],
    "charts": charts.for_screens(draw, 13.0) if drawn else None,
    "legend": [_name(entry, folder) for entry in drawn],
  }


def _name(entry, folder):
  return os.path.relpath(entry.workdir, folder)


def _row(entry, folder, changed):
  name = _name(entry, folder)
  problem = entry.problem.removeprefix(f"{entry.workdir}: ")
  page = os.path.join(name, run_files.REPORT, "index.html")
  numbers = {x: values.number(entry.summary.get(x)) for x in _NUMBERS}
  return {
    **{"name": name, "problem": problem, "address": urllib.parse.quote(page)},
    "stream": entry.flags.get("stream"),
    "system": entry.flags.get("system"),
    "changes": [entry.flags.get(flag) for flag in changed],
    "miou": values.number(values.mapping(entry.summary, "miou").get("mean")),
    "spark": "" if entry.curve is None else charts.spark(entry.curve),
    "is_finished": bool(entry.summary.get("finished")),
    **numbers,
  }

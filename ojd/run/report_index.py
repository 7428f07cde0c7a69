"""A page about several runs: a line each, and their accuracy in one chart."""

import json
import os
import pathlib
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ojd.errors import UserError
from ojd.run import report, report_chart, report_page, report_runs
from ojd.run import report_text as text

# What has a column of its own, or says nothing of the method.
_NOT_FLAGS = {"workdir", "stream", "system"}


class Entry(NamedTuple):
  """A run in few numbers."""

  workdir: pathlib.Path
  flags: dict[str, Any]
  summary: dict[str, Any]
  curve: report_runs.Curve | None
  problem: str  # why it cannot be read, else ""


def find(folder: pathlib.Path) -> list[pathlib.Path]:
  """The folder itself where it is a run's, else the runs in it.

  What else lies in it is passed over; a UserError where there is no run.
  """
  is_run = lambda path: (path / "config.json").is_file()
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
      note_fn(str(path / "report" / "index.html"))
  return entries


def read_one(workdir: pathlib.Path) -> Entry:
  """A run as its page shows it, its own report left as it is."""
  try:
    report.check(workdir)
    return _entry(workdir, report.read(workdir))
  except UserError as error:
    return Entry(workdir, {}, {}, None, str(error))


def rewrite_one(workdir: pathlib.Path) -> Entry:
  """Writes the report of a run; a UserError where it cannot be."""
  report.check(workdir)
  run = report.read(workdir)
  try:
    report.write(run)
  except OSError as error:
    raise UserError(
      f"{workdir}: its report cannot be written: {error.strerror}"
    ) from None
  return _entry(workdir, run)


def _entry(workdir, run):
  curve = report_runs.curve(report_chart.read_series(run.rows))
  flags = text.mapping(run.config, "flags")
  return Entry(workdir, flags, run.summary, curve, "")


def write(
  entries: list[Entry],
  target: pathlib.Path,
  head: str = "",
  title: str = "Online distillation",
) -> None:
  """Writes the page; what else is there under that name is not touched.

  Args:
    entries: of the runs.
    target: the file.
    head: HTML that comes before them.
    title: over all.
  """
  try:
    is_taken = target.exists() and not _is_ours(target)
    if not is_taken:
      target.parent.mkdir(parents=True, exist_ok=True)
      report_page.replace_file(
        target, _page(entries, target.parent, head, title)
      )
  except OSError as error:
    raise UserError(f"{target} cannot be written: {error.strerror}") from None
  if is_taken:
    raise UserError(f"{target} is there and is no index of runs")


def _is_ours(path):
  with path.open("rb") as file:
    return report_page.MADE_HERE.encode() in file.read(4096)


def changed_flags(all_flags: list[dict[str, Any]]) -> list[str]:
  """Names of the flags in which runs differ, in the order of the first."""
  names = dict.fromkeys(name for flags in all_flags for name in flags)
  values = lambda name: {_plain(flags.get(name)) for flags in all_flags}
  return [
    name for name in names if name not in _NOT_FLAGS and len(values(name)) > 1
  ]


def _plain(value):
  if value is None:
    return text.UNKNOWN
  return value if isinstance(value, str) else json.dumps(value)


def _page(entries, folder, head, name):
  drawn = [e for e in entries if e.curve is not None and len(e.curve.t)]
  drawn = drawn[: report_runs.MAX_CURVES]
  colors = {e.workdir: f"var(--run-{i})" for i, e in enumerate(drawn)}
  body = f"""<header>
<p class="soft small">{name}</p>
<h1>{text.count(len(entries), "run")}</h1></header>
{head}
{_table(entries, folder, colors)}
{_chart(drawn, folder, colors)}"""
  title = f"{text.count(len(entries), 'run')} - online distillation"
  return report_page.page(title, body, "index.js", "index")


def _chart(drawn, folder, colors):
  if not drawn:
    return ""
  curves = [entry.curve for entry in drawn]
  charts = "".join(
    f'<div class="{kind}" role="img" aria-label="mIoU of the runs over their '
    f'frames">{report_runs.draw(curves, width=width, prefix=kind)}</div>'
    for kind, width in (("wide", 13.0), ("narrow", 4.4))
  )
  legend = "".join(
    f"<li>{_chip(colors[e.workdir])}{text.escape(_name(e, folder))}</li>"
    for e in drawn
  )
  return f"""<h2>mIoU over the frames, smoothed</h2>
<div class="card">{charts}<ul class="legend">{legend}</ul></div>"""


def _chip(color):
  return f'<span class="chip" style="background:{color}"></span>'


def _name(entry, folder):
  return os.path.relpath(entry.workdir, folder)


def _table(entries, folder, colors):
  changed = changed_flags([e.flags for e in entries if not e.problem])
  words = (*("run", "stream", "system"), *changed)
  numbers = (
    *("mIoU", "over time", "frames", "key frames", "updates", "frames/s"),
    *("speed-up, measured", "speed-up, paper"),
  )
  heads = (*words, *numbers, "state")
  head = "".join(
    f'<th class="{"n" if name in numbers else ""}">{text.escape(name)}</th>'
    for name in heads
  )
  rows = "".join(
    _row(entry, folder, changed, len(heads), colors.get(entry.workdir))
    for entry in entries
  )
  return f"""<div class="card"><table class="sortable words"><thead><tr>{head}
</tr></thead><tbody>{rows}</tbody></table></div>"""


def _row(entry, folder, changed, width, color):
  name = text.escape(_name(entry, folder))
  if entry.problem:
    problem = text.escape(entry.problem.removeprefix(f"{entry.workdir}: "))
    return (
      f'<tr><th>{name}</th><td class="warn" colspan="{width - 1}">unreadable: '
      f"{problem}</td></tr>"
    )
  address = os.path.relpath(entry.workdir / "report" / "index.html", folder)
  address = text.escape(urllib.parse.quote(address))
  get, flags = entry.summary.get, entry.flags
  mean = text.mapping(entry.summary, "miou").get("mean")
  fraction = get("key_frame_fraction")
  # A teacher without a price has no speed to be compared with.
  measured, paper = get("speedup_measured") or None, get("speedup_paper_model")
  cells = (
    _cell(_plain(flags.get("stream"))),
    _cell(_plain(flags.get("system"))),
    *(_flag(flags.get(name)) for name in changed),
    _number(mean, text.fixed(mean, 3)),
    f"<td>{report_runs.spark(entry.curve)}</td>",
    _number(get("num_frames"), text.integer(get("num_frames"))),
    _number(fraction, text.percent(fraction)),
    _number(get("num_updates"), text.integer(get("num_updates"))),
    _number(get("fps"), text.fixed(get("fps"), 1)),
    _number(measured, text.times(measured)),
    _number(paper, text.times(paper)),
    _cell("finished" if get("finished") else "stopped"),
  )
  return (
    f"<tr><th>{_chip(color) if color else ''}"
    f'<a href="{address}">{name}</a></th>{"".join(cells)}</tr>'
  )


def _cell(words):
  return f"<td>{text.escape(words)}</td>"


def _flag(value):
  words = _plain(value)
  return _number(value, words) if text.is_number(value) else _cell(words)


def _number(value, words):
  """A cell that is sorted by its value."""
  exact = f' data-value="{value}"' if text.is_number(value) else ""
  return f'<td class="n"{exact}>{words}</td>'

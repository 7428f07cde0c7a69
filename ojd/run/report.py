"""The page about a run: one HTML file that needs nothing but itself.

Reads only what the run left in its folder, so that it can be written again at
any time, also for a run that was killed half-way.
"""

import json
import pathlib
from typing import Any

from ojd.errors import UserError
from ojd.run import (
  report_costs,
  report_fork,
  report_keys,
  report_moment,
  report_page,
)
from ojd.run import report_sections as sections
from ojd.run import report_text as text

_MAX_JSON = 1 << 24  # bytes of a file that is read whole
_MAX_LINE = 1 << 16  # of metrics.jsonl


def write_report(workdir: pathlib.Path) -> pathlib.Path:
  """Writes `report/index.html` from the other files; returns its path."""
  return write(read(workdir))


def read(workdir: pathlib.Path) -> sections.Run:
  """What a workdir says; nothing of files that are missing or damaged."""
  config = _read_json(workdir / "config.json")
  rows = read_metrics(workdir / "metrics.jsonl")
  summary = _count(rows) | _read_json(workdir / "summary.json")
  parent_rows = read_metrics(workdir / "parent.jsonl")
  return sections.Run(workdir, config, summary, rows, parent_rows)


def write(run: sections.Run) -> pathlib.Path:
  """Writes the page of a run into its workdir; returns its path."""
  target = run.workdir / "report" / "index.html"
  target.parent.mkdir(parents=True, exist_ok=True)
  report_page.replace_file(target, _page(run))
  return target


def check(workdir: pathlib.Path) -> None:
  """Raises a UserError where a folder is not a run's, or is damaged."""
  if not workdir.is_dir():
    raise UserError(f"{workdir}: there is no such folder")
  if not (workdir / "config.json").is_file():
    raise UserError(f"{workdir} is no workdir: it has no config.json")
  if not text.mapping(_read_json(workdir / "config.json"), "flags"):
    raise UserError(f"{workdir}: its config.json is damaged")
  metrics, summary = workdir / "metrics.jsonl", workdir / "summary.json"
  if not metrics.is_file():
    raise UserError(f"{workdir}: its metrics.jsonl is missing")
  if summary.exists() and not _read_json(summary):
    raise UserError(f"{workdir}: its summary.json is damaged")
  try:
    is_damaged = metrics.stat().st_size and not read_metrics(metrics)
  except OSError as error:
    raise UserError(f"{metrics}: {error.strerror}") from None
  if is_damaged:
    raise UserError(f"{workdir}: its metrics.jsonl is damaged")


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
  """The lines of metrics.jsonl, without what a killed run left half-written."""
  rows = []
  if not path.exists():
    return rows
  with path.open("rb") as file:
    while line := file.readline(_MAX_LINE):
      row = _parse(line)
      if isinstance(row, dict) and _is_index(row.get("t")):
        rows.append(row)
  return rows


def _is_index(t):
  return isinstance(t, int) and not isinstance(t, bool) and 0 <= t < 2**53


def _read_json(path):
  try:
    with path.open("rb") as file:
      content = _parse(file.read(_MAX_JSON))
  except OSError:
    return {}
  return content if isinstance(content, dict) else {}


def _parse(words):
  try:
    return json.loads(words.decode("utf-8", errors="replace"))
  except (ValueError, RecursionError):
    return None


def _count(rows):
  """What can be said of a run that had no time for a summary."""
  keys = [row for row in rows if row.get("is_key")]
  updates = [row.get("num_updates") for row in keys]
  return {
    "finished": False,
    "num_frames": len(rows),
    "num_key_frames": len(keys),
    "key_frame_fraction": len(keys) / max(len(rows), 1),
    "num_updates": sum(x for x in updates if text.is_number(x)),
    "eval_frames": sum(text.is_number(row.get("eval_miou")) for row in rows),
  }


def _page(run):
  title = text.escape(text.mapping(run.config, "flags").get("stream") or "run")
  parts = (
    _headline(run, title),
    _tiles(run.summary),
    report_fork.section(run),
    report_moment.section(run, sections.chart(run)),
    report_keys.section(run),
    _beside(sections.classes(run), sections.times(run)),
    _beside(report_costs.costs(run), report_costs.disk(run)),
    sections.gallery(run),
    sections.command(run.config),
    sections.glossary(),
    sections.settings(run.config),
  )
  body = "\n".join(part for part in parts if part)
  title = f"{title} - online distillation"
  return report_page.page(title, body, "report.js", "run")


def _beside(*parts):
  return f'<div class="pair">{"".join(parts)}</div>' if any(parts) else ""


def _headline(run, title):
  state = ""
  if not run.summary.get("finished"):
    state = (
      '<p class="warn">This run stopped before the end of its stream; '
      "the numbers are of the frames that it saw.</p>"
    )
  return f"""<header>
<p class="soft small">Online distillation</p>
<h1>{title}</h1>
<p class="verdict">{verdict(run.summary)}</p>{state}
</header>"""


def verdict(summary: dict[str, Any]) -> str:
  """The run in one sentence, as HTML."""
  if not summary.get("num_frames"):
    return "No frame was processed."
  miou = text.mapping(summary, "miou")
  accuracy = "The student was compared with nothing"
  if summary.get("eval_frames"):
    accuracy = "The student's accuracy is known frame by frame only"
  if text.is_number(miou.get("mean")):
    reference = text.escape(miou.get("reference") or "reference")
    accuracy = (
      f"The student reached a mIoU of <b>{miou['mean']:.3f}</b> "
      f"against the {reference}"
    )
  return (
    f"{accuracy}: the teacher labelled "
    f"{text.integer(summary.get('num_key_frames'))} of "
    f"{text.count(summary['num_frames'], 'frame')} "
    f"(<b>{text.percent(summary.get('key_frame_fraction'))}</b>), the student "
    f"made {text.count(summary.get('num_updates'), 'update')} on them"
    f"{_speed(summary)}."
  )


def _speed(summary):
  """The end of the sentence; nothing where no speed is known."""
  measured = summary.get("speedup_measured")
  paper = text.times(summary.get("speedup_paper_model"))
  if text.is_number(measured) and measured > 0:
    return (
      f", and the run was <b>{measured:.1f} times</b> as fast as the teacher "
      f"on every frame ({paper} in the paper's cost model)"
    )
  if paper == text.UNKNOWN:
    return ""
  # A teacher that costs nothing, or that was never asked, cannot be beaten.
  return f"; in the paper's cost model that is a speed-up of <b>{paper}</b>"


def _tiles(summary):
  get = summary.get
  mean = text.mapping(summary, "miou").get("mean")
  updates, keys = get("num_updates"), get("num_key_frames")
  per_key = "no key frame"
  if text.is_number(updates) and text.is_number(keys) and keys:
    per_key = f"{updates / keys:.1f} per key frame"
  judged = f"{text.count(get('eval_frames'), 'frame')} judged"
  of_all = f"{text.integer(keys)} of {text.count(get('num_frames'), 'frame')}"
  # A teacher without a price has no speed to be compared with.
  measured = get("speedup_measured") or None
  paper = text.times(get("speedup_paper_model"))
  tiles = [
    ("mIoU", text.fixed(mean, 3), judged),
    ("key frames", text.percent(get("key_frame_fraction")), of_all),
    ("updates", text.integer(updates), per_key),
    *_delay(get("mean_delay_frames")),
    *_link(text.mapping(summary, "link")),
    ("speed-up", text.times(measured), "measured"),
    ("speed-up", paper, "paper's cost model"),
    ("frames/s", text.fixed(get("fps"), 1), "without compiling"),
    ("peak memory", text.memory(get("peak_memory_mb")), "of the process"),
  ]
  problems = (
    ("num_rolled_back", "updates undone", "their loss was not finite"),
    ("num_skipped", "frames skipped", "they could not be read"),
    ("teacher_failures", "teacher failures", "the student went on alone"),
    ("interrupted", "interruptions", "in this folder"),
  )
  for name, title, note in problems:
    if text.is_number(get(name)) and get(name):
      tiles.append((title, text.integer(get(name)), note, "warn"))
  return f'<div class="tiles">{"".join(_tile(*tile) for tile in tiles)}</div>'


def _delay(frames):
  """A tile, for a run that did not wait for its teacher."""
  if not text.is_number(frames):
    return []
  return [("delay", text.fixed(frames, 1), "frames, of the teacher's labels")]


def _link(link):
  """Tiles of a run over a network."""
  if not link:
    return []
  note = "Kbps, by the stream's time"
  return [
    ("up", text.fixed(link.get("up_kbps"), 0), note),
    ("down", text.fixed(link.get("down_kbps"), 0), note),
    (
      "staleness",
      text.fixed(link.get("mean_staleness"), 1),
      "frames until what was learnt answers",
    ),
    (
      "device",
      text.fixed(link.get("fps"), 1),
      "frames/s in the stream's time",
    ),
  ]


def _tile(title, value, note, kind=""):
  return (
    f'<div class="tile"><span>{title}</span><b class="{kind}">{value}</b>'
    f"<span>{note}</span></div>"
  )

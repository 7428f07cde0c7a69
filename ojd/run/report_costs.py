"""What a run cost: teacher calls, updates, and bytes on the disk."""

import os
import pathlib

from ojd.run import report_sections as sections
from ojd.run import report_text as text
from ojd.run.stats import paper_speedup
from ojd.types import Costs

# What the stages of summary.json are of the paper's prices.
_STAGES = {
  "teacher": ("teacher", "teacher_failed", "teacher_async"),
  "update": ("learn",),
  "predict": ("predict",),
  "training": (),
}
_LEFT = {
  "trajectory": "the teacher's answers",
  "checkpoints": "to go on from",
  "overlay.mp4": "the video",
  "masks": "the student's class maps",
  "metrics.jsonl": "a line a frame",
}


def costs(run: sections.Run) -> str:
  """The paper's prices beside the seconds of this run."""
  get = run.summary.get
  names = ("num_frames", "num_key_frames", "num_updates")
  counts = [get(name) for name in names]
  if not all(text.is_number(x) and x >= 0 for x in counts) or not counts[0]:
    return ""
  frames, keys, updates = counts
  prices = _prices(run)
  lines = [
    ("teacher calls", keys, "teacher"),
    ("updates", updates, "update"),
    ("other frames", frames - keys, "predict"),
  ]
  if prices.training:
    lines.insert(1, ("training rounds", keys, "training"))
  rows = "".join(_row(run, prices, *line) for line in lines)
  alone = prices.teacher * frames / 1e3
  model = alone / (paper_speedup(frames, keys, updates, prices) or 1)
  rows += _line("together", "", model, "")
  rows += _line(
    *("teacher on every frame", _product(frames, prices.teacher)),
    *(alone, "", "apart"),
  )
  return f"""<section><h2>Costs</h2>
<div class="card"><table class="words"><thead><tr><th></th>
<th class="n">paper's prices</th><th class="n">paper, s</th>
<th class="n">here, s</th></tr></thead><tbody>{rows}</tbody></table></div>
<p class="soft small">The paper's prices are of its own machine; updates here
are all that is done on a key frame after the teacher.</p></section>"""


def _prices(run):
  """Of the run's method; the student's where the summary has none."""
  given = text.mapping(run.summary, "paper_ms")
  known = {
    name: given[name]
    for name in Costs._fields
    if text.is_number(given.get(name)) and given[name] >= 0
  }
  return Costs(**known)


def _row(run, prices, name, number, kind):
  seconds = text.mapping(run.summary, "seconds")
  known = [seconds[stage] for stage in _STAGES[kind] if stage in seconds]
  here = sum(known) if known and all(map(text.is_number, known)) else None
  price = getattr(prices, kind)
  paper = number * price / 1e3
  return _line(name, _product(number, price), paper, text.fixed(here, 2))


def _product(number, price):
  return f"{text.integer(number)} \u00d7 {price:,g} ms"


def _line(name, product, paper, here, kind=""):
  return (
    f'<tr class="{kind}"><th>{name}</th><td class="n">{product}</td>'
    f'<td class="n">{paper:,.1f}</td><td class="n">{here}</td></tr>'
  )


def disk(run: sections.Run) -> str:
  """How large the files are that the run left."""
  sizes = {name: size_of(run.workdir / name) for name in _LEFT}
  if not any(sizes.values()):
    return ""
  frames = run.summary.get("num_frames")
  rows = "".join(
    f'<tr><th>{name}<div class="soft small">{_LEFT[name]}</div></th>'
    f'<td class="n">{text.size(size)}</td>'
    f'<td class="n">{_each(size, frames)}</td></tr>'
    for name, size in sizes.items()
    if size
  )
  return f"""<section><h2>On the disk</h2>
<div class="card"><table class="words"><thead><tr><th>file</th>
<th class="n">size</th><th class="n">per frame</th></tr></thead>
<tbody>{rows}</tbody></table></div></section>"""


def _each(size, frames):
  is_known = text.is_number(frames) and frames > 0
  return text.size(size / frames) if is_known else text.UNKNOWN


def size_of(path: pathlib.Path) -> int:
  """Bytes of a file, or of all in a folder; 0 where there is nothing."""
  if not path.is_dir():
    return path.stat().st_size if path.is_file() else 0
  total = 0
  for folder, _, names in os.walk(path):
    for name in names:
      try:
        total += os.lstat(os.path.join(folder, name)).st_size
      except OSError:  # a checkpoint that has just gone
        continue
  return total

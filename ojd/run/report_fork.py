"""What a page says of a fork: how it fared beside the run it came from."""

import dataclasses
from typing import Any

from ojd.run import report_text as text
from ojd.run.config import RunConfig
from ojd.run.report_sections import Run

_APART = ("workdir",)  # flags in which a fork differs anyway


def section(run: Run) -> str:
  """Parent and fork over the same frames; "" for a run that is no fork."""
  fork = text.mapping(run.config, "fork")
  start = fork.get("from_frame")
  if not text.is_number(start) or not run.rows:
    return ""
  end = run.rows[-1]["t"]
  past = [row for row in run.parent_rows if start <= row["t"] <= end]
  columns = ("", "mean mIoU", "key frames", "updates", "frames")
  head = "".join(f'<th class="n">{name}</th>' for name in columns[1:])
  body = "".join(
    _row(name, rows) for name, rows in (("parent", past), ("fork", run.rows))
  )
  changes = _changes(text.mapping(fork, "flags"), run.config)
  return f"""<h2>A fork at frame {text.integer(start)}</h2>
<p>Of <code>{text.escape(str(fork.get("parent")))}</code>, with {changes}.
{text.count(run.summary.get("num_recalled"), "answer")} of its teacher were on
record there.</p>
<div class="card"><table><thead><tr><th></th>{head}</tr></thead>
<tbody>{body}</tbody></table></div>
<p class="soft small">Over the frames from the fork on that it has seen; the
mean is over the judged ones.</p>"""


def _row(name: str, rows: list[dict[str, Any]]) -> str:
  judged = [r["eval_miou"] for r in rows if text.is_number(r.get("eval_miou"))]
  mean = sum(judged) / len(judged) if judged else None
  keys = [row for row in rows if row.get("is_key")]
  updates = sum(
    row["num_updates"] for row in keys if text.is_number(row.get("num_updates"))
  )
  cells = (text.fixed(mean, 3), *map(text.integer, (len(keys), updates)))
  numbers = "".join(
    f'<td class="n">{cell}</td>' for cell in (*cells, text.integer(len(rows)))
  )
  return f"<tr><th>{name}</th>{numbers}</tr>"


def _changes(there: dict[str, Any], config: dict[str, Any]) -> str:
  """The flags that are others, as HTML."""
  here = text.mapping(config, "flags")
  names = [field.name for field in dataclasses.fields(RunConfig)]
  words = [
    f"<code>--{name}</code> {text.escape(str(here.get(name)))} instead of "
    f"{text.escape(str(there.get(name)))}"
    for name in names
    if name not in _APART and here.get(name) != there.get(name)
  ]
  return ", ".join(words) or "the same flags"

"""The page of a comparison: one HTML file that needs nothing but itself."""

import pathlib
import urllib.parse
from collections.abc import Sequence

from ojd.comparison import chart as charts
from ojd.comparison import table as tables
from ojd.comparison import text as texts
from ojd.comparison.table import Cell, Kind, Table
from ojd.run import report_page
from ojd.run import report_text as text

# Of a line a run: title, name of the number, how it is written.
_COLUMNS = (
  ("mIoU, %", "miou", lambda x: text.fixed(x and 100 * x, 1)),
  ("speed-up, paper", "speedup_paper_model", text.times),
  ("ms a frame, paper", "ms_paper_model", lambda x: text.fixed(x, 1)),
  ("speed-up, measured", "speedup_measured", text.times),
  ("key frames", "key_frame_fraction", text.percent),
  ("updates", "num_updates", text.integer),
  ("frames", "num_frames", text.integer),
  ("frames/s", "fps", lambda x: text.fixed(x, 1)),
)
_OF_LINK = (
  ("Kbps up", "up_kbps", lambda x: text.fixed(x, 1)),
  ("Kbps down", "down_kbps", lambda x: text.fixed(x, 1)),
  ("staleness", "mean_staleness", lambda x: text.fixed(x, 1)),
  ("frames/s on the device", "link_fps", lambda x: text.fixed(x, 1)),
)


def write(
  table: Table,
  update_table: Table | None,
  cells: Sequence[Cell],
  notes: Sequence[str],
  command: str,
  target: pathlib.Path,
) -> None:
  """Writes the page.

  Args:
    table: of `tables.build`.
    update_table: of the systems that are gradient steps, where some are.
    cells: all runs.
    notes: below the tables.
    command: that made all this.
    target: the file.
  """
  num_streams = sum(len(section.rows) for section in table.sections)
  title = (
    f"{text.count(len(table.systems), 'system')} on "
    f"{text.count(num_streams, 'stream')}"
  )
  body = f"""<header>
<p class="soft small">Online distillation</p>
<h1>{title}</h1></header>
{"".join(_chart(table, axis) for axis in charts.axes_of(table))}
{"".join(_table(table, kind) for kind in tables.kinds(table))}
{_notes(notes)}
{_failures(cells)}
{_updates(update_table)}
{_runs(cells)}
<h2>Command</h2><div class="card"><code>{text.escape(command)}</code></div>"""
  page = report_page.page(
    f"{title} - online distillation", body, "index.js", "index"
  )
  report_page.replace_file(target, page)


def _chart(table, axis):
  found = charts.curves(table, axis)
  if not found:
    return ""
  pictures = "".join(
    f'<div class="{kind}" role="img" aria-label="mIoU of the systems against '
    f'{text.escape(axis.label)}">'
    + charts.svg(found, width=width, prefix=f"{kind}-{axis.stat}", axis=axis)
    + "</div>"
    for kind, width in (("wide", 11.0), ("narrow", 4.4))
  )
  legend = "".join(
    f'<li><span class="chip" style="background:var(--run-{i})"></span>'
    f"{text.escape(curve.label)}</li>"
    for i, curve in enumerate(found[: charts.MAX_CURVES])
  )
  return f"""<h2>{axis.title}, average of all streams</h2>
<div class="card">{pictures}<ul class="legend">{legend}</ul></div>"""


def _table(table: Table, kind: Kind):
  head = _heads("", *(system.label for system in table.systems))
  rows = [_row(table.overall, kind)]
  width = len(table.systems) + 1
  parts = [("Category averages", table.categories)] if table.categories else []
  parts += [(s.title or "Streams", s.rows) for s in table.sections]
  for title, members in parts:
    rows.append(
      f'<tr class="apart"><th colspan="{width}">{text.escape(title)}</th></tr>'
    )
    rows += [_row(member, kind) for member in members]
  return f"""<h2>{text.escape(kind.title)}</h2>
<div class="card"><table class="words"><thead><tr>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>"""


def _heads(*titles):
  first, *rest = map(text.escape, titles)
  return f"<th>{first}</th>" + "".join(f'<th class="n">{x}</th>' for x in rest)


def _row(row, kind):
  cells = "".join(
    f'<td class="n{"" if entry.stats else " warn"}">'
    f"{text.escape(kind.write(entry, tables.HTML))}</td>"
    for entry in row.entries
  )
  return f"<tr><th>{text.escape(row.title)}</th>{cells}</tr>"


def _notes(notes):
  lines = "".join(f"<p class='soft small'>{text.escape(x)}</p>" for x in notes)
  return lines


def _failures(cells):
  lines = tables.failures(cells)
  items = "".join(f'<p class="warn">{text.escape(line)}</p>' for line in lines)
  return f"<h2>Failed</h2>{items}" if items else ""


def _updates(table):
  if table is None:
    return ""
  titles = [title for title, *_ in texts.UPDATES]
  rows = "".join(
    f"<tr><th>{text.escape(system.label)}</th>"
    + "".join(
      f'<td class="n">{text.escape(write(entry, name, tables.HTML))}</td>'
      for _, name, write in texts.UPDATES
    )
    + "</tr>"
    for system, entry in zip(table.systems, table.overall.entries, strict=True)
  )
  return f"""<h2>Gradient steps, average of all streams</h2>
<div class="card"><table class="sortable words"><thead><tr>
{_heads("gradient step", *titles)}</tr></thead><tbody>{rows}</tbody></table>
</div>"""


def _runs(cells):
  has_link = any(c.numbers and c.numbers.up_kbps is not None for c in cells)
  columns = _COLUMNS + (_OF_LINK if has_link else ())
  numbers = "".join(f'<th class="n">{title}</th>' for title, *_ in columns)
  rows = "".join(_run(cell, columns) for cell in cells)
  return f"""<h2>All runs</h2>
<div class="card"><table class="sortable words"><thead><tr>
<th>stream</th><th>system</th><th class="n">seed</th>{numbers}
</tr></thead><tbody>{rows}</tbody></table></div>"""


def _run(cell, columns):
  address = urllib.parse.quote(f"{cell.folder}/report/index.html")
  name, label = text.escape(cell.stream.name), text.escape(cell.system.label)
  head = f'<a href="{text.escape(address)}">{name}</a>'
  if cell.numbers is None:
    head, words = name, f'<td class="warn" colspan="{len(columns)}">failed'
    words += "</td>"
  else:
    words = "".join(_number(cell.numbers, *column) for column in columns)
  return (
    f'<tr><th>{head}</th><td>{label}</td><td class="n">{cell.seed}</td>'
    f"{words}</tr>"
  )


def _number(numbers, title, name, write):
  del title
  value = getattr(numbers, name)
  exact = "" if value is None else f' data-value="{value}"'
  return f'<td class="n"{exact}>{write(value)}</td>'

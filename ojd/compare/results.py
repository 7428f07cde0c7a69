"""The files in which a comparison ends: text, CSV, LaTeX, pictures, a page."""

import csv
import pathlib
from collections.abc import Iterable, Sequence

from ojd.compare import chart, formatting, page
from ojd.compare import folder as folders
from ojd.compare import table as tables
from ojd.compare.compare import Request
from ojd.compare.formatting import Kind
from ojd.compare.numbers import Numbers
from ojd.compare.table import Cell, Table
from ojd.errors import UserError

_LATEX = {
  **{c: "\\" + c for c in "&%$#_{}"},
  "\\": r"\textbackslash{}",
  "~": r"\textasciitilde{}",
  "^": r"\textasciicircum{}",
}


def write(request: Request, cells: Sequence[Cell], command: str) -> str:
  """Writes them into the results folder, older ones are replaced.

  Args:
    request: what was compared.
    cells: of `compare.run`.
    command: that made all this, for the page.

  Returns:
    The tables as text, with notes and what failed below.
  """
  table = tables.build(list(cells))
  changed = [cell for cell in cells if cell.system in request.updates]
  update_table = tables.build(changed) if changed else None
  notes = formatting.notes(cells, request.num_jobs)
  parts = [text(table, kind) for kind in formatting.kinds(table)]
  if update_table is not None:
    parts.append(updates_text(update_table))
  parts.append("\n".join(notes))
  failed = formatting.failures(cells)
  if failed:
    parts.append("\n".join(["Failed:", *failed]))
  words = "\n\n".join(parts)
  folder = request.output
  try:
    (folder / folders.TEXT).write_text(words + "\n", encoding="utf-8")
    (folder / folders.LATEX).write_text(
      "\n".join(latex(table, kind) for kind in formatting.kinds(table)),
      encoding="utf-8",
    )
    write_cells(cells, folder / folders.CELLS_CSV)
    write_table(table, folder / folders.TABLE_CSV)
    for axis in chart.axes_of(table):
      path = folder / folders.PICTURES[axis.stat]
      chart.write_png(chart.curves(table, axis), path, axis)
    page.write(
      *(table, update_table, cells, notes, command, folder / folders.PAGE)
    )
  except OSError as error:
    raise UserError(
      f"--output={folder} cannot be written: {error.strerror}"
    ) from None
  return words


def text(table: Table, kind: Kind) -> str:
  """The table for a terminal."""
  write = lambda row: [kind.write(e, formatting.TEXT) for e in row.entries]
  lines: list[list[str]] = [
    [kind.title, *(system.label for system in table.systems)],
    [table.overall.title, *write(table.overall)],
  ]
  if table.categories:
    lines += [[], ["Category averages"]]
    lines += [[f"  {row.title}", *write(row)] for row in table.categories]
  for section in table.sections:
    lines += [[], [section.title or "Streams"]]
    lines += [[f"  {row.title}", *write(row)] for row in section.rows]
  return _align(lines)


def updates_text(table: Table) -> str:
  """The gradient steps one below the other, over all streams."""
  lines = [["gradient step", *(title for title, *_ in formatting.UPDATES)]]
  for system, entry in zip(table.systems, table.overall.entries, strict=True):
    lines.append(
      [
        system.label,
        *(write(entry, name) for _, name, write in formatting.UPDATES),
      ]
    )
  return _align(lines)


def _align(lines):
  size = max(map(len, lines))
  columns = ([line[i] for line in lines if len(line) > 1] for i in range(size))
  widths = [max(map(len, column)) for column in columns]
  return "\n".join(
    "  ".join(x.ljust(w) for x, w in zip(line, widths, strict=False)).rstrip()
    for line in lines
  )


def latex(table: Table, kind: Kind) -> str:
  """The table for a paper; needs no package."""
  num_columns = len(table.systems) + 1
  lines = [
    rf"\begin{{tabular}}{{l{'c' * (num_columns - 1)}}}",
    r"\hline",
    _latex_line("", [_latex(system.label) for system in table.systems]),
    r"\hline",
    _latex_row(table.overall, kind),
  ]
  parts = [("Category averages", table.categories)] if table.categories else []
  parts += [(s.title or "Streams", s.rows) for s in table.sections]
  for title, rows in parts:
    head = rf"\multicolumn{{{num_columns}}}{{l}}{{\textit{{{_latex(title)}}}}}"
    lines += [r"\hline", head + r" \\"]
    lines += [_latex_row(row, kind) for row in rows]
  lines += [r"\hline", r"\end{tabular}"]
  return "\n".join(lines) + "\n"


def _latex_row(row, kind):
  words = [kind.write(entry, formatting.LATEX) for entry in row.entries]
  return _latex_line(_latex(row.title), words)


def _latex_line(title, words):
  return " & ".join([title, *words]) + r" \\"


def _latex(words):
  return "".join(_LATEX.get(c, c) for c in words)


def write_cells(cells: Iterable[Cell], path: pathlib.Path) -> None:
  """A line of CSV for each run."""
  head = ("stream", "name", "category", "system", "seed", "run")
  rows = [
    [
      *(cell.stream.uri, cell.stream.name, cell.stream.category),
      *(cell.system.label, cell.seed, cell.folder),
      *map(_plain, cell.numbers or Numbers()),
      cell.problem,
    ]
    for cell in cells
  ]
  _write_csv(path, [*head, *Numbers._fields, "problem"], rows)


def write_table(table: Table, path: pathlib.Path) -> None:
  """A line of CSV for each place of the table, averages as well."""
  rows = list(_levels(table))
  lines = []
  for level, category, row in rows:
    for system, entry in zip(table.systems, row.entries, strict=True):
      line = [level, category, row.title, system.label, entry.is_partial]
      stats = [entry.stats.get(name) for name in Numbers._fields]
      line.append(max((s.count for s in stats if s), default=0))
      for stat in stats:
        line += [_plain(stat and stat.mean), _plain(stat and stat.deviation)]
      lines.append(line)
  head = ["level", "category", "name", "system", "is_partial", "num_seeds"]
  for name in Numbers._fields:
    head += [name, f"{name}_deviation"]
  _write_csv(path, head, lines)


def _levels(table):
  yield "overall", "", table.overall
  for row in table.categories:
    yield "category", row.title, row
  for section in table.sections:
    for row in section.rows:
      yield "stream", section.title, row


def _plain(x):
  return "" if x is None else f"{x:.10g}"


def _write_csv(path, head, rows):
  with path.open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(head)
    writer.writerows(rows)

"""The page of a comparison: one HTML file that needs nothing but itself."""

import pathlib
import urllib.parse
from collections.abc import Sequence

from ojd.compare import chart as charts
from ojd.compare import formatting
from ojd.compare.table import Cell, Table
from ojd.report import pages, values
from ojd.report.charts import MAX_CURVES, for_screens

# Of a line a run: title, name of the number, how it is written.
_COLUMNS = (
  ("mIoU, %", "miou", lambda x: values.fixed(x and 100 * x, 1)),
  ("speed-up, paper", "speedup_paper_model", values.times),
  ("ms a frame, paper", "ms_paper_model", lambda x: values.fixed(x, 1)),
  ("speed-up, measured", "speedup_measured", values.times),
  ("key frames", "key_frame_fraction", values.percent),
  ("updates", "num_updates", values.integer),
  ("frames", "num_frames", values.integer),
  ("frames/s", "fps", lambda x: values.fixed(x, 1)),
)
_OF_LINK = (
  ("Kbps up", "up_kbps", lambda x: values.fixed(x, 1)),
  ("Kbps down", "down_kbps", lambda x: values.fixed(x, 1)),
  ("staleness", "mean_staleness", lambda x: values.fixed(x, 1)),
  ("frames/s on the device", "link_fps", lambda x: values.fixed(x, 1)),
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
  has_link = any(c.numbers and c.numbers.up_kbps is not None for c in cells)
  columns = _COLUMNS + (_OF_LINK if has_link else ())
  pages.write(
    target,
    "comparison.html",
    title=f"{values.counted(len(table.systems), 'system')} on "
    f"{values.counted(num_streams, 'stream')}",
    charts=[
      _chart(axis, found)
      for axis in charts.axes_of(table)
      if (found := charts.curves(table, axis))
    ],
    systems=[system.label for system in table.systems],
    tables=[_table(table, kind) for kind in formatting.kinds(table)],
    notes=notes,
    failures=formatting.failures(cells),
    updates=None if update_table is None else _updates(update_table),
    columns=[title for title, *_ in columns],
    runs=[_run(cell, columns) for cell in cells],
    command=command,
  )


def _chart(axis, found):
  draw = lambda width, prefix: charts.svg(
    found, width=width, prefix=f"{prefix}-{axis.stat}", axis=axis
  )
  return {
    "title": axis.title,
    "label": axis.label,
    "pictures": for_screens(draw, 11.0),
    "legend": [curve.label for curve in found[:MAX_CURVES]],
  }


def _table(table, kind):
  parts = [("", [table.overall])]
  if table.categories:
    parts.append(("Category averages", table.categories))
  parts += [(s.title or "Streams", s.rows) for s in table.sections]
  return {
    "title": kind.title,
    "parts": [
      {"title": title, "rows": [_row(row, kind) for row in rows]}
      for title, rows in parts
    ],
  }


def _row(row, kind):
  cells = [
    {"words": kind.write(entry, formatting.HTML), "is_failed": not entry.stats}
    for entry in row.entries
  ]
  return {"title": row.title, "cells": cells}


def _updates(table):
  pairs = zip(table.systems, table.overall.entries, strict=True)
  return {
    "titles": [title for title, *_ in formatting.UPDATES],
    "rows": [
      {
        "title": system.label,
        "cells": [
          write(entry, name, formatting.HTML)
          for _, name, write in formatting.UPDATES
        ],
      }
      for system, entry in pairs
    ],
  }


def _run(cell, columns):
  numbers = cell.numbers and [
    (value := getattr(cell.numbers, name), write(value))
    for _, name, write in columns
  ]
  return {
    "stream": cell.stream.name,
    "system": cell.system.label,
    "seed": cell.seed,
    "address": urllib.parse.quote(f"{cell.folder}/report/index.html"),
    "numbers": numbers,
  }

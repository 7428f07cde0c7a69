"""The files in which a comparison ends."""

from collections.abc import Sequence

from ojd.comparison import chart, page
from ojd.comparison import folder as folders
from ojd.comparison import table as tables
from ojd.comparison import text as texts
from ojd.comparison.compare import Request
from ojd.comparison.table import Cell
from ojd.errors import UserError


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
  notes = tables.notes(cells, request.num_jobs)
  parts = [texts.text(table, kind) for kind in tables.kinds(table)]
  if update_table is not None:
    parts.append(texts.updates_text(update_table))
  parts.append("\n".join(notes))
  failed = tables.failures(cells)
  if failed:
    parts.append("\n".join(["Failed:", *failed]))
  words = "\n\n".join(parts)
  folder = request.output
  try:
    (folder / folders.TEXT).write_text(words + "\n", encoding="utf-8")
    (folder / folders.LATEX).write_text(
      "\n".join(texts.latex(table, kind) for kind in tables.kinds(table)),
      encoding="utf-8",
    )
    texts.write_cells(cells, folder / folders.CELLS_CSV)
    texts.write_table(table, folder / folders.TABLE_CSV)
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

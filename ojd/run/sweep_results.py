"""The results of a sweep: a table for a terminal, a CSV file, heat maps."""

import csv
import itertools
import pathlib
from typing import Any

import numpy as np
from matplotlib import colors, figure, patches

from ojd.errors import UserError
from ojd.run.sweep import Trial

TABLE, HEAT_MAP = "sweep.csv", "sweep.png"
_MAX_PANELS = 12  # pairs of heat maps in one picture


def rows(trials: list[Trial]) -> list[dict[str, Any]]:
  """One row per trial, the most accurate first."""
  ordered = sorted(trials, key=lambda trial: -trial.miou)
  return [
    {
      **trial.values,
      "miou": round(trial.miou, 6),
      "num_key_frames": trial.num_keys,
      "key_frame_fraction": round(trial.key_fraction, 6),
      "num_updates": trial.num_updates,
      "speedup_paper_model": round(trial.speedup, 3),
    }
    for trial in ordered
  ]


def table(trials: list[Trial]) -> str:
  """The table as text for a terminal."""
  found = rows(trials)
  cells = [list(found[0])] + [[f"{x:g}" for x in r.values()] for r in found]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  return "\n".join(
    "  ".join(x.rjust(w) for x, w in zip(row, widths, strict=True))
    for row in cells
  )


def write(
  trials: list[Trial], own: dict[str, Any], title: str, folder: pathlib.Path
) -> None:
  """Writes the table and the picture.

  Args:
    trials: every combination.
    own: the run's own constants; the picture marks them with a frame.
    title: of the picture.
    folder: is made if needed; older files of the same names are replaced.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / TABLE).open("w", newline="") as file:
      found = rows(trials)
      writer = csv.DictWriter(file, found[0])
      writer.writeheader()
      writer.writerows(found)
    draw(trials, own, title).savefig(folder / HEAT_MAP, dpi=110)
  except OSError as error:
    raise UserError(f"--out={folder}: {error.strerror}") from None


# The maps: title, value of a trial, format of the value.
_MAPS = (
  ("mIoU", lambda trial: trial.miou, "{:.3f}"),
  ("key frames", lambda trial: trial.key_fraction, "{:.1%}"),
)


def draw(trials: list[Trial], own: dict[str, Any], title: str) -> figure.Figure:
  """Two heat maps over the first two constants, per value of the others."""
  down, *rest = trials[0].values
  across, others = (rest or [None])[0], rest[1:]
  key_of = lambda trial: [trial.values[name] for name in others]
  groups = itertools.groupby(sorted(trials, key=key_of), key_of)
  groups = [(key, list(group)) for key, group in groups][:_MAX_PANELS]
  tall = len({trial.values[down] for trial in trials})
  wide = len({trial.values.get(across) for trial in trials})
  size = (2 * (1.6 + 0.9 * wide), len(groups) * (1.3 + 0.45 * tall) + 0.5)
  fig = figure.Figure(
    figsize=(max(size[0], 6.5), size[1]), layout="constrained"
  )
  fig.suptitle(title, fontsize=10)
  axes = fig.subplots(len(groups), len(_MAPS), squeeze=False)
  for row, (key, group) in zip(axes, groups, strict=True):
    note = ", ".join(f"{n}={v:g}" for n, v in zip(others, key, strict=True))
    for ax, (name, value, form) in zip(row, _MAPS, strict=True):
      ax.set_title(f"{name}  {note}".strip(), fontsize=9, loc="left")
      limits = colors.Normalize(*(f(map(value, trials)) for f in (min, max)))
      cells = [(x.values, value(x)) for x in group]
      _draw_map(ax, cells, (down, across), form, limits, own)
  return fig


def _draw_map(ax, cells, names, form, limits, own):
  """Draws one cell per trial, with a frame around the run's own constants."""
  ys, xs = (sorted({at.get(name) for at, _ in cells}) for name in names)
  grid = np.full((len(ys), len(xs)), np.nan)
  for at, value in cells:
    y, x = ys.index(at.get(names[0])), xs.index(at.get(names[1]))
    grid[y, x] = value
    mine = all(own.get(name) == v for name, v in at.items())
    ax.text(
      *(x, y, form.format(value)),
      ha="center",
      va="center",
      fontsize=8,
      fontweight="bold" if mine else None,
      color="black" if limits(value) > 0.5 else "white",
    )
    if mine:
      corner = x - 0.48, y - 0.46
      frame = patches.Rectangle(
        corner, 0.96, 0.92, fill=False, ec="red", lw=1.6
      )
      ax.add_patch(frame)
  ax.imshow(grid, norm=limits, aspect="auto")
  for axis, values, name in (
    (ax.yaxis, ys, names[0]),
    (ax.xaxis, xs, names[1]),
  ):
    if name:
      axis.set_ticks(range(len(values)), [f"{v:g}" for v in values], fontsize=8)
      axis.set_label_text(name, fontsize=8)
    else:
      axis.set_ticks([])

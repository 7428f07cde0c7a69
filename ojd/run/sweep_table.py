"""A sweep as a table and as heat maps."""

import csv
import itertools
import pathlib
from typing import Any

import numpy as np
from matplotlib import figure, patches

from ojd.errors import UserError
from ojd.run.sweep import Trial

TABLE, HEAT_MAP = "sweep.csv", "sweep.png"
_MAX_PANELS = 12  # pairs of heat maps in one picture
# Of a trial: title, value, how it is written into its cell.
_MAPS = (
  ("mIoU", lambda trial: trial.miou, "{:.3f}"),
  ("key frames", lambda trial: trial.num_keys / trial.num_frames, "{:.1%}"),
)


def rows(trials: list[Trial]) -> list[dict[str, Any]]:
  """A row a trial, the most accurate first."""
  ordered = sorted(trials, key=lambda trial: -trial.miou)
  return [
    {
      **trial.values,
      "miou": round(trial.miou, 6),
      "num_key_frames": trial.num_keys,
      "key_frame_fraction": round(trial.num_keys / trial.num_frames, 6),
      "num_updates": trial.num_updates,
      "speedup_paper_model": round(trial.speedup, 3),
    }
    for trial in ordered
  ]


def text(trials: list[Trial]) -> str:
  """The table for a terminal."""
  table = rows(trials)
  cells = [list(table[0])] + [[f"{x:g}" for x in r.values()] for r in table]
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
    own: the run's own constants, which get a frame in the picture.
    title: of the picture.
    folder: is made; older files of the same names are replaced.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / TABLE).open("w", newline="") as file:
      table = rows(trials)
      writer = csv.DictWriter(file, table[0])
      writer.writeheader()
      writer.writerows(table)
    draw(trials, own, title).savefig(folder / HEAT_MAP, dpi=110)
  except OSError as error:
    raise UserError(f"--out={folder}: {error.strerror}") from None


def draw(trials: list[Trial], own: dict[str, Any], title: str) -> figure.Figure:
  """Two heat maps for every combination beyond the first two constants."""
  names = list(trials[0].values)
  down = names[0]
  across = names[1] if len(names) > 1 else None
  others = names[2:]
  groups = [
    (key, list(group))
    for key, group in itertools.groupby(
      sorted(trials, key=lambda x: [x.values[n] for n in others]),
      key=lambda x: [x.values[n] for n in others],
    )
  ][:_MAX_PANELS]
  tall = len({trial.values[down] for trial in trials})
  wide = len({trial.values[across] for trial in trials}) if across else 1
  size = (2 * (1.6 + 0.9 * wide), len(groups) * (1.3 + 0.45 * tall) + 0.5)
  fig = figure.Figure(
    figsize=(max(size[0], 6.5), size[1]), layout="constrained"
  )
  fig.suptitle(title, fontsize=10)
  axes = fig.subplots(len(groups), len(_MAPS), squeeze=False)
  for row, (key, group) in zip(axes, groups, strict=True):
    for ax, (name, value, form) in zip(row, _MAPS, strict=True):
      note = ", ".join(f"{n}={v:g}" for n, v in zip(others, key, strict=True))
      ax.set_title(f"{name}  {note}".strip(), fontsize=9, loc="left")
      limits = [f(map(value, trials)) for f in (min, max)]
      _draw_map(ax, group, (down, across), value, form, limits, own)
  return fig


def _draw_map(ax, trials, names, value, form, limits, own):
  down, across = names
  ys = sorted({trial.values[down] for trial in trials})
  xs = sorted({trial.values[across] for trial in trials}) if across else [None]
  grid = np.full((len(ys), len(xs)), np.nan)
  for trial in trials:
    y = ys.index(trial.values[down])
    x = xs.index(trial.values[across]) if across else 0
    grid[y, x] = value(trial)
    mine = all(own.get(name) == v for name, v in trial.values.items())
    middle = (grid[y, x] - limits[0]) / ((limits[1] - limits[0]) or 1) > 0.5
    ax.text(
      *(x, y, form.format(grid[y, x])),
      ha="center",
      va="center",
      fontsize=8,
      fontweight="bold" if mine else None,
      color="black" if middle else "white",
    )
    if mine:
      ax.add_patch(
        patches.Rectangle(
          (x - 0.48, y - 0.46), 0.96, 0.92, fill=False, ec="red", lw=1.6
        )
      )
  low, high = limits
  ax.imshow(grid, vmin=low, vmax=high if high > low else low + 1, aspect="auto")
  ax.set_yticks(range(len(ys)), [f"{y:g}" for y in ys], fontsize=8)
  ax.set_ylabel(down, fontsize=8)
  if across:
    ax.set_xticks(range(len(xs)), [f"{x:g}" for x in xs], fontsize=8)
    ax.set_xlabel(across, fontsize=8)
  else:
    ax.set_xticks([])

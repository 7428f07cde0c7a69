"""Figures as `<svg>` elements that take their colours and size from a page."""

import html
import io
import json
import re
from typing import Any

import matplotlib
from matplotlib import axes, figure

# What stands for a colour that the page decides, light or dark.
INK, GRID = "#010100", "#010101"
_VARIABLES = {INK: "currentColor", GRID: "var(--line)"}


def style(ax: axes.Axes) -> None:
  """Makes the frame of a chart a few quiet lines."""
  ax.patch.set_visible(False)
  ax.grid(axis="y", color=GRID, lw=0.8)
  ax.set_axisbelow(True)
  ax.tick_params(colors=INK, labelsize=8, length=0)
  for side in ("top", "right", "left"):
    ax.spines[side].set_visible(False)
  ax.spines["bottom"].set_color(GRID)


def element(
  fig: figure.Figure,
  prefix: str,
  variables: dict[str, str],
  plot: dict[str, Any] | None = None,
) -> str:
  """The figure as an element of a page.

  Args:
    fig: the figure.
    prefix: of every id, so that a page may hold several.
    variables: colours of CSS by what stands for them, besides INK and GRID.
    plot: where things are, for scripts, as the attribute `data-plot`.
  """
  target = io.StringIO()
  with matplotlib.rc_context({"svg.fonttype": "none"}):
    fig.savefig(target, format="svg", transparent=True)
  svg = target.getvalue()
  svg = svg[svg.index("<svg") :]
  svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
  svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
  # Fonts come from the page as well, but not the sizes.
  svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
  svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
  for color, variable in (_VARIABLES | variables).items():
    svg = svg.replace(color, variable)
  if plot is None:
    return svg
  words = html.escape(json.dumps(plot))
  return svg.replace("<svg", f'<svg data-plot="{words}"', 1)


def place(ax: axes.Axes) -> dict[str, list[float]]:
  """Where a chart lies: its ends in numbers and in the whole picture.

  "x" and "y" are fractions of the picture's width and height from its upper
  left corner; "xlim" and "ylim" are what is drawn there.
  """
  box = ax.get_position()
  return {
    "x": [round(float(x), 6) for x in (box.x0, box.x1)],
    "y": [round(1 - float(y), 6) for y in (box.y0, box.y1)],
    "xlim": [float(x) for x in ax.get_xlim()],
    "ylim": [float(y) for y in ax.get_ylim()],
  }

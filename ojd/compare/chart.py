"""Accuracy against cost: a curve for each method, a point for each setting."""

import math
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from matplotlib import axes, figure, ticker

from ojd.compare.formatting import PARTIAL, differs_in_work
from ojd.compare.spec import SystemEntry
from ojd.compare.table import Table
from ojd.report import charts

_LONG_LABEL = 12  # letters
_MARKERS = "osD^v"  # the next once all colours are taken


class Axis(NamedTuple):
  """A cost, and which systems are one method at several prices."""

  title: str  # of the chart
  stat: str  # of Numbers
  label: str
  curve: Callable[[SystemEntry], str]
  setting: Callable[[SystemEntry], str]  # in what those of a curve differ


PAPER = Axis(
  "Accuracy against cost",
  "ms_paper_model",
  "ms a frame, paper's cost model",
  lambda system: system.curve,
  lambda system: system.setting,
)
_EVERY = "refresh_every"
WORK = Axis(
  "Accuracy against work",
  "gmac_per_frame",
  "GMAC a frame, of the student's answers",
  lambda system: system.without(_EVERY).label,
  lambda system: str(dict(system.options).get(_EVERY, "")),
)


class Point(NamedTuple):
  """One system, averaged over all streams."""

  label: str
  cost: float
  miou: float  # in percent
  deviation: float  # over the seeds, likewise


class Curve(NamedTuple):
  """A method at several settings, the cheapest first."""

  label: str
  points: list[Point]


def axes_of(table: Table) -> list[Axis]:
  """The axes along which the systems differ."""
  return [PAPER, *[WORK] * differs_in_work(table)]


def curves(table: Table, axis: Axis = PAPER) -> list[Curve]:
  """The curves of the overall averages, without systems that failed."""
  found: dict[str, list[Point]] = {}
  for system, entry in zip(table.systems, table.overall.entries, strict=True):
    miou = entry.stats.get("miou")
    cost = entry.stats.get(axis.stat)
    if miou is None or cost is None or cost.mean <= 0:
      continue
    label = axis.setting(system) + (f" {PARTIAL}" if entry.is_partial else "")
    point = Point(
      label.strip(),
      cost.mean,
      100 * miou.mean,
      100 * miou.deviation,
    )
    found.setdefault(axis.curve(system), []).append(point)
  return [
    Curve(name, sorted(points, key=lambda point: point.cost))
    for name, points in found.items()
  ]


def write_png(
  found: list[Curve], path: pathlib.Path, axis: Axis = PAPER
) -> None:
  """Writes the chart as a picture with its legend."""
  fig = figure.Figure(figsize=(8, 5), layout="constrained")
  ax = fig.subplots()
  _draw(ax, found, axis.label, charts.PALETTE, "#222222")
  ax.grid(color="#dddddd", lw=0.6)
  ax.set_axisbelow(True)
  if found:
    ax.legend(fontsize=8, frameon=False)
  fig.savefig(path, dpi=130)


def svg(
  found: list[Curve], *, width: float, prefix: str, axis: Axis = PAPER
) -> str:
  """The chart as an element of a page.

  Args:
    found: the i-th has the colour --run-i of the page.
    width: in inches; the page scales it to its own.
    prefix: of every id.
    axis: of the costs.
  """
  height = 2.6 + 0.16 * width
  fig = figure.Figure(figsize=(width, height))
  ax = fig.subplots()
  _draw(ax, found, axis.label, charts.CURVES, charts.INK)
  charts.style(ax)
  fig.subplots_adjust(
    left=0.55 / width,
    right=1 - 0.15 / width,
    top=1 - 0.1 / height,
    bottom=0.45 / height,
  )
  return charts.element(fig, prefix)


def _draw(ax: axes.Axes, found, label, colors, ink):
  costs = [point.cost for curve in found for point in curve.points]
  middle = math.sqrt(min(costs) * max(costs)) if costs else 0.0
  for i, curve in enumerate(found):
    xs = [point.cost for point in curve.points]
    ys = [point.miou for point in curve.points]
    errors = [point.deviation for point in curve.points]
    turn, place = divmod(i, len(colors))
    ax.errorbar(
      *(xs, ys),
      yerr=errors if any(errors) else None,
      color=colors[place],
      marker=_MARKERS[turn % len(_MARKERS)],
      lw=1.5,
      ms=5,
      capsize=2,
      label=curve.label,
    )
    for point in curve.points:
      # Long words on the right would leave the picture.
      is_left = point.cost > middle and len(point.label) > _LONG_LABEL
      ax.annotate(
        point.label,
        (point.cost, point.miou),
        xytext=(-5, 4) if is_left else (5, 4),
        ha="right" if is_left else "left",
        textcoords="offset points",
        fontsize=7.5,
        color=ink,
      )
  ax.set_xscale("log")
  if costs:
    # Room for the words beside the last point, and not a decade for one.
    ax.set_xlim(min(costs) / 1.15, max(costs) * 1.4)
    ax.margins(y=0.12)
  ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
  ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:g}"))
  ax.xaxis.set_minor_formatter(ticker.NullFormatter())
  ax.set_xlabel(label, color=ink, fontsize=9)
  ax.set_ylabel("mIoU, %", color=ink, fontsize=9)

"""A plan in three charts: teachers by size, latency, cost of waiting."""

import itertools
import pathlib

from matplotlib import axes, figure, lines, ticker

from ojd.fleet.plan import Alone, Point, Terms
from ojd.report.charts import PALETTE

_INK, _SOFT, _GRID = "#222222", "#888888", "#dddddd"
_PERCENTILES = (("p50", "-"), ("p95", "--"), ("p99", ":"))


def write_png(
  sizes: list[Point],
  sweep: list[Point],
  facts: dict[str, Alone],
  terms: Terms,
  path: pathlib.Path,
) -> None:
  """Draws the plan.

  Args:
    sizes: teachers needed, by scene and number of streams.
    sweep: of one number of streams, by scene and teachers.
    facts: of every scene.
    terms: of the plan.
    path: of the picture.
  """
  fig = figure.Figure(figsize=(15, 4.8), layout="constrained")
  colors = dict(zip(facts, itertools.cycle(PALETTE)))
  teachers, latency, lost = fig.subplots(1, 3)
  _draw_sizes(teachers, sizes, facts, terms, colors)
  _draw_latency(latency, sweep, terms, colors)
  _draw_lost(lost, sweep, colors)
  for ax in (teachers, latency, lost):
    _style(ax)
  fig.savefig(path, dpi=110)


def _style(ax: axes.Axes):
  ax.grid(color=_GRID, lw=0.6)
  ax.set_axisbelow(True)
  ax.tick_params(colors=_INK, labelsize=8)
  for side in ("top", "right"):
    ax.spines[side].set_visible(False)


def _name(ax, title, x, y):
  ax.set_title(title, fontsize=10, loc="left", color=_INK)
  ax.set_xlabel(x, fontsize=9, color=_INK)
  ax.set_ylabel(y, fontsize=9, color=_INK)


def _of(points, scene):
  return [point for point in points if point.scene == scene]


def _draw_sizes(ax, points, facts, terms, colors):
  for scene, color in colors.items():
    mine = _of(points, scene)
    xs = [point.streams for point in mine]
    ys = [point.per_1000 for point in mine]
    ax.plot(xs, ys, "o-", color=color, lw=1.5, ms=4, label=scene)
    per_1000 = 1e3 * facts[scene].demand
    ax.axhline(per_1000, color=color, lw=0.8, ls=(0, (1, 3)))
  ax.set_xscale("log")
  ax.set_ylim(bottom=0)
  ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:,.0f}"))
  ax.legend(fontsize=8, frameon=False)
  title = (
    f"Teachers that answer 95% of key frames within {terms.latency:g} s\n"
    "dotted: those that the work alone keeps busy"
  )
  _name(ax, title, "streams", "teachers per 1,000 streams")


def _draw_latency(ax, points, terms, colors):
  for scene, color in colors.items():
    mine = sorted(_of(points, scene), key=lambda point: point.load)
    for name, line in _PERCENTILES:
      xs = [point.load for point in mine]
      ys = [getattr(point, name) for point in mine]
      ax.plot(xs, ys, ls=line, color=color, lw=1.4)
  ax.axhline(terms.latency, color=_INK, lw=0.8)
  ax.set_yscale("log")
  ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))
  entries = [(scene, color, "-") for scene, color in colors.items()]
  entries += [(name, _SOFT, line) for name, line in _PERCENTILES]
  handles = [
    lines.Line2D([], [], color=color, ls=line, lw=1.4, label=label)
    for label, color, line in entries
  ]
  ax.legend(handles=handles, fontsize=8, frameon=False)
  title = f"Latency of {_streams(points)}\nthe line across: what is asked for"
  x = "load: teachers kept busy if no stream waited, over teachers"
  _name(ax, title, x, "seconds from asking to the answer")


def _draw_lost(ax, points, colors):
  for scene, color in colors.items():
    mine = _of(points, scene)
    xs = [point.per_1000 for point in mine]
    ys = [point.lost for point in mine]
    ax.plot(xs, ys, "o-", color=color, lw=1.5, ms=4, label=scene)
  ax.set_xlim(left=0)
  ax.set_ylim(bottom=0)
  ax.legend(fontsize=8, frameon=False)
  title = f"What waiting for a teacher costs {_streams(points)}\n"
  title += "beside a teacher for every stream"
  _name(ax, title, "teachers per 1,000 streams", "mIoU lost, points")


def _streams(points):
  return f"{points[0].streams:,} streams" if points else ""

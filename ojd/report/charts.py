"""Charts as `<svg>` elements that take their colours and size from a page.

The chart of a run is after Figure 4 of the JITNet paper: accuracy, updates and
stride on one axis of frames. Letters: F frames, E evaluated frames, K key
frames, P points of a curve.
"""

import html
import io
import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import axes, figure, ticker

from ojd.report import values

KEY_MARKERS = "key-frames"  # id of the group with one marker a key frame
# Of the curves of one chart, on white paper; --run-0, ... of the stylesheet.
PALETTE = (
  *("#1763c7", "#c75300", "#16794f", "#a11a6b", "#6b4fc9", "#8a6d00"),
  *("#0e8a9c", "#b3261e", "#5c7a00", "#7a4a2b", "#4a5568", "#d0408f"),
)
MAX_CURVES = len(PALETTE)  # nobody can distinguish more colours
# What stands for a colour that the page decides, light or dark.
INK, GRID, _LINE, _KEY, _STRIDE = (f"#0101{i:02x}" for i in range(5))
CURVES = tuple(f"#0103{i:02x}" for i in range(MAX_CURVES))
_VARIABLES = {
  INK: "currentColor",
  GRID: "var(--line)",
  _LINE: "var(--accent)",
  _KEY: "var(--key)",
  _STRIDE: "var(--stride)",
  **{color: f"var(--run-{i})" for i, color in enumerate(CURVES)},
}
_MAX_COLUMNS = 400  # nobody can distinguish more points
_NUM_POINTS = 400  # of a curve
_NUM_SPARKS = 60  # of a small one


def for_screens(
  draw: Callable[[float, str], str], wide: float
) -> dict[str, str]:
  """A chart for wide and one for narrow screens, by their class of CSS.

  Args:
    draw: takes a width in inches and a prefix of every id.
    wide: the first width.
  """
  return {"wide": draw(wide, "wide"), "narrow": draw(4.4, "narrow")}


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
  fig: figure.Figure, prefix: str, plot: dict[str, Any] | None = None
) -> str:
  """The figure as an element of a page.

  Args:
    fig: the figure.
    prefix: of every id, so that a page may hold several.
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
  for color, variable in _VARIABLES.items():
    svg = svg.replace(color, variable)
  if plot is None:
    return svg
  words = html.escape(json.dumps(plot))
  return svg.replace("<svg", f'<svg data-plot="{words}"', 1)


def _place(ax):
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


class Series(NamedTuple):
  """What is drawn; NaN where nothing was measured."""

  t: np.ndarray  # [F]
  stride: np.ndarray  # [F]
  eval_t: np.ndarray  # [E]
  eval_miou: np.ndarray  # [E]
  key_t: np.ndarray  # [K]
  before: np.ndarray  # [K], agreement with the teacher before training
  after: np.ndarray  # [K], and after
  updates: np.ndarray  # [K]


def read_series(rows: list[dict[str, Any]]) -> Series:
  """Columns from the lines of metrics.jsonl."""
  t, stride = _column(rows, "t"), _column(rows, "stride")
  miou = _column(rows, "eval_miou")
  is_evaluated = np.isfinite(miou)
  keys = [row for row in rows if row.get("is_key")]
  columns = ("t", "miou_before", "miou_after", "num_updates")
  # A system that has not met its first key frame yet has stride 0.
  stride = np.where(stride > 0, stride, np.nan)
  return Series(
    t,
    stride,
    t[is_evaluated],
    miou[is_evaluated],
    *(_column(keys, name) for name in columns),
  )


def _column(rows, name):
  found = (row.get(name) for row in rows)
  return np.array(
    [x if values.is_number(x) else math.nan for x in found], np.float64
  )


def smooth(series: np.ndarray) -> tuple[np.ndarray, int]:
  """Centred moving average, and over how many values; ends use fewer."""
  window = len(series) // 40 | 1
  if window == 1:
    return series, 1
  kernel = np.ones(window)
  sums = np.convolve(series, kernel, "same")
  return sums / np.convolve(np.ones(len(series)), kernel, "same"), window


def draw_run(
  series: Series,
  *,
  width: float,
  threshold: float | None,
  prefix: str,
  beside: Series | None = None,
) -> str:
  """Draws a run of at least one frame as an `<svg>` element.

  Args:
    series: of `read_series`.
    beside: another run, drawn in grey: of a fork the parent.
    width: in inches; the page scales the picture to its own width.
    threshold: the agreement at which training stops, or None.
    prefix: of every id, so that a page may hold several charts.
  """
  fig = figure.Figure(figsize=(width, 3.4 + 0.36 * width))
  ratios = (3.2, 1.7, 1.1, 1.1)
  axes = fig.subplots(4, 1, sharex=True, height_ratios=ratios)
  columns = min(_MAX_COLUMNS, int(40 * width))
  if beside is not None:
    _draw_beside(axes, beside)
  _draw_miou(axes[0], series, columns)
  _draw_agreement(axes[1], series, columns, threshold)
  _draw_updates(axes[2], series, columns)
  _draw_stride(axes[3], series)
  for ax in axes:
    style(ax)
  ends = [run.t[[0, -1]] for run in (series, beside) if run is not None]
  first, last = np.min(ends), np.max(ends)
  margin = max(1.0, 0.01 * (last - first))
  axes[3].set_xlim(first - margin, last + margin)
  axes[3].xaxis.set_major_locator(
    ticker.MaxNLocator(6, integer=True, min_n_ticks=1)
  )
  axes[3].set_xlabel("frame", color=INK, fontsize=9)
  fig.subplots_adjust(
    left=0.5 / width, right=1 - 0.1 / width, top=0.95, bottom=0.07, hspace=0.42
  )
  return _to_svg(fig, prefix)


def _draw_beside(axes, series):
  """The other run's mIoU, updates and stride, behind what is to come."""
  grey = {"color": INK, "alpha": 0.4}
  means, _ = smooth(series.eval_miou)
  axes[0].plot(series.eval_t, means, lw=1.2, **grey)
  width = min(6.0, max(0.7, 400 / max(len(series.key_t), 1)))
  updates = np.nan_to_num(series.updates)
  axes[2].vlines(series.key_t, 0, updates, lw=width, **grey)
  axes[3].step(series.t, series.stride, where="post", lw=1.2, **grey)


def _draw_miou(ax, series, columns):
  t, miou = series.eval_t, series.eval_miou
  means, window = smooth(miou)
  title = "mIoU of the student"
  if window > 1:
    title += f", and its mean over {window} evaluations"
  _set_title(ax, title if len(t) else "mIoU: no frame was evaluated")
  ax.set_ylim(-0.09, 1.04)
  if len(t) > 4 * columns:
    _draw_envelope(ax, t, miou, columns)
    shown = np.linspace(0, len(t) - 1, 2 * columns).astype(int)
    ax.plot(t[shown], means[shown], color=_LINE, lw=1.6)
  else:
    ax.plot(t, miou, color=_LINE, lw=0.8, alpha=0.35)
    dot = "o" if len(t) < 60 else None
    ax.plot(t, means, color=_LINE, lw=1.6, marker=dot, ms=3)
  key_t = series.key_t[_thin(series.key_t, series.updates, columns)]
  # Triangles would run into each other where there are many.
  shape = {"marker": "|", "ms": 5, "mew": 0.7}
  if len(key_t) < columns / 3:
    shape = {"marker": "^", "ms": 4, "mew": 0}
  height = np.full(len(key_t), -0.045)
  (markers,) = ax.plot(key_t, height, ls="none", color=_KEY, **shape)
  markers.set_gid(KEY_MARKERS)


def _draw_envelope(ax, t, miou, columns):
  """Least and greatest value of each stretch: single ones are too many."""
  starts = np.linspace(0, len(t), columns, endpoint=False).astype(int)
  low = np.minimum.reduceat(miou, starts)
  high = np.maximum.reduceat(miou, starts)
  ax.fill_between(t[starts], low, high, color=_LINE, alpha=0.25, lw=0)


def _thin(t, updates, columns):
  """Indices of the greatest value in each column of the picture."""
  if len(t) <= columns:
    return np.arange(len(t))
  column = ((t - t[0]) * columns / (t[-1] - t[0] + 1)).astype(int)
  order = np.lexsort((np.nan_to_num(updates), column))
  is_last = np.append(np.diff(column[order]) > 0, True)
  return order[is_last]


def _draw_agreement(ax, series, columns, threshold):
  _set_title(ax, "Agreement with the teacher: before \u25cb, after \u25cf")
  ax.set_ylim(-0.06, 1.06)
  if threshold is not None:
    ax.axhline(threshold, color=INK, lw=0.7, ls=(0, (4, 3)), alpha=0.7)
  if not len(series.key_t):
    return _say(ax, "no key frames")
  kept = _thin(series.key_t, series.updates, columns // 2)
  t, before, after = series.key_t[kept], series.before[kept], series.after[kept]
  ax.vlines(t, before, after, color=_KEY, lw=1, alpha=0.7)
  ax.plot(t, before, "o", mfc="none", mec=_KEY, ms=3, mew=0.8)
  ax.plot(t, after, "o", color=_KEY, ms=3, mew=0)


def _draw_updates(ax, series, columns):
  _set_title(ax, "Updates per key frame")
  ax.yaxis.set_major_locator(ticker.MaxNLocator(3, integer=True))
  if not len(series.key_t):
    ax.set_ylim(0, 1)
    return _say(ax, "no key frames")
  kept = _thin(series.key_t, series.updates, columns)
  t, updates = series.key_t[kept], np.nan_to_num(series.updates[kept])
  line_width = min(6.0, max(0.7, columns / len(t)))
  ax.vlines(t, 0, updates, color=_KEY, lw=line_width)
  ax.set_ylim(0, 1.1 * max(1.0, updates.max(), ax.dataLim.y1))


def _draw_stride(ax, series):
  _set_title(ax, "Stride: frames between key frames")
  change = np.append(True, np.diff(np.nan_to_num(series.stride)) != 0)
  change[-1] = True
  t, stride = series.t[change], series.stride[change]
  if not np.isfinite(stride).any():
    ax.set_ylim(0, 1)
    return _say(ax, "not set yet")
  alone = "o" if len(t) == 1 else None
  ax.step(t, stride, where="post", color=_STRIDE, lw=1.6, marker=alone, ms=3)
  low = min(np.nanmin(stride), ax.dataLim.y0)
  high = max(np.nanmax(stride), ax.dataLim.y1)
  ax.set_yscale("log", base=2)
  ax.set_ylim(low / 1.5, high * 1.5)
  powers = 2.0 ** np.arange(np.floor(np.log2(low)), np.log2(high) + 0.5)
  ax.yaxis.set_major_locator(ticker.FixedLocator(powers[-4:]))
  ax.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))


def _say(ax, words):
  ax.set_yticks([])
  ax.text(
    0.5, 0.5, words, color=INK, alpha=0.7, transform=ax.transAxes,
    ha="center", va="center",
  )  # fmt: skip


def _set_title(ax, words):
  ax.set_title(words, loc="left", fontsize=9, color=INK, pad=4)


def _to_svg(fig, prefix):
  """The figure as an element that says where its frames are."""
  top, bottom = _place(fig.axes[0]), _place(fig.axes[-1])
  plot = {**top, "bottom": bottom["y"][0]}
  return element(fig, prefix, plot)


class Curve(NamedTuple):
  """The smoothed mIoU of a run, at some of its frames."""

  t: np.ndarray  # [P]
  miou: np.ndarray  # [P]


def curve(series: Series) -> Curve:
  """Of a run; without points where nothing was evaluated."""
  means, _ = smooth(series.eval_miou)
  return _at_most(Curve(series.eval_t, means), _NUM_POINTS)


def _at_most(line, most):
  count = len(line.t)
  kept = np.linspace(0, count - 1, min(count, most)).astype(int)
  return Curve(line.t[kept], line.miou[kept])


def draw_curves(curves: list[Curve], *, width: float, prefix: str) -> str:
  """Draws at most MAX_CURVES, with at least a point each, as `<svg>`.

  Args:
    curves: the i-th has the colour --run-i of the page, the second half dashes.
    width: in inches; the page scales the picture to its own width.
    prefix: of every id.
  """
  fig = figure.Figure(figsize=(width, 2.2 + 0.16 * width))
  ax = fig.subplots()
  for i, one in enumerate(curves):
    dashes = "-" if 2 * i < MAX_CURVES else (0, (4, 2))
    alone = "o" if len(one.t) == 1 else None
    ax.plot(
      one.t, one.miou, color=CURVES[i], lw=1.5, ls=dashes, marker=alone, ms=4
    )
  ax.set_ylim(-0.04, 1.04)
  ax.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True, min_n_ticks=1))
  ax.set_xlabel("frame", color=INK, fontsize=9)
  style(ax)
  fig.subplots_adjust(
    left=0.4 / width, right=1 - 0.1 / width, top=0.96, bottom=0.14
  )
  return element(fig, prefix)


def spark(line: Curve) -> str:
  """The points of a curve in a picture of 100 x 24; "" where there are none."""
  points = _at_most(line, _NUM_SPARKS)
  if not len(points.t):
    return ""
  span = max(float(points.t[-1] - points.t[0]), 1.0)
  xs = 2 + 96 * (points.t - points.t[0]) / span
  ys = 22 - 20 * np.clip(points.miou, 0, 1)
  return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))

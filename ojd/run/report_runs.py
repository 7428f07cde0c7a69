"""Accuracy over the frames of several runs: one chart, and a small one each."""

from typing import NamedTuple

import numpy as np
from matplotlib import figure, ticker

from ojd.run import report_chart, report_svg, report_text

MAX_CURVES = 12  # of the chart: more colours nobody tells apart
_NUM_POINTS = 400  # of a curve
_NUM_SPARKS = 60  # of a small one
_LINES = [f"#0103{i:02x}" for i in range(MAX_CURVES)]
_VARIABLES = {color: f"var(--run-{i})" for i, color in enumerate(_LINES)}


class Curve(NamedTuple):
  """The smoothed mIoU of a run, at some of its frames; P points."""

  t: np.ndarray  # [P]
  miou: np.ndarray  # [P]


def curve(series: report_chart.Series) -> Curve:
  """Of a run; without points where nothing was evaluated."""
  means, _ = report_chart.smooth(series.eval_miou)
  return _thin(Curve(series.eval_t, means), _NUM_POINTS)


def _thin(curve, most):
  count = len(curve.t)
  kept = np.linspace(0, count - 1, min(count, most)).astype(int)
  return Curve(curve.t[kept], curve.miou[kept])


def draw(curves: list[Curve], *, width: float, prefix: str) -> str:
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
      one.t, one.miou, color=_LINES[i], lw=1.5, ls=dashes, marker=alone, ms=4
    )
  ax.set_ylim(-0.04, 1.04)
  ax.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True, min_n_ticks=1))
  ax.set_xlabel("frame", color=report_svg.INK, fontsize=9)
  report_svg.style(ax)
  fig.subplots_adjust(
    left=0.4 / width, right=1 - 0.1 / width, top=0.96, bottom=0.14
  )
  return report_svg.element(fig, prefix, _VARIABLES)


def spark(curve: Curve) -> str:
  """A curve as a picture of a table's cell, from 0 below to 1 above."""
  points = _thin(curve, _NUM_SPARKS)
  if not len(points.t):
    return report_text.UNKNOWN
  span = max(float(points.t[-1] - points.t[0]), 1.0)
  xs = 2 + 96 * (points.t - points.t[0]) / span
  ys = 22 - 20 * np.clip(points.miou, 0, 1)
  words = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
  return (
    '<svg class="spark" viewBox="0 0 100 24" role="img" aria-label="mIoU over '
    f'the frames"><polyline points="{words}"/></svg>'
  )

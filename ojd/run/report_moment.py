"""The moments of a run: its video and its chart, and what a click needs.

Letters: R rows that the page holds of metrics.jsonl, K key frames among them.
"""

import pathlib
from typing import Any

import av
import numpy as np

from ojd.run import report_page
from ojd.run import report_text as text

MAX_ROWS = 5000  # a page of them is as quick as one of a hundred


def section(run: Any, chart: str) -> str:
  """Video and chart, in which a moment can be chosen where scripts run.

  Args:
    run: a `report_sections.Run`.
    chart: its HTML.
  """
  player = _player(run.workdir)
  if not player and not chart:
    return ""
  numbers = data(run.rows, video_fps(run.workdir)) if chart else None
  content = (
    "" if numbers is None else report_page.script_json("run-data", numbers)
  )
  return f'<section id="moment">\n{player}{chart}\n{content}</section>'


def _player(workdir):
  """The overlay video, the one thing that stays outside the page."""
  if not (workdir / "overlay.mp4").exists():
    return ""
  return (
    '<h2>Video</h2>\n<div class="player"><video controls playsinline muted '
    'preload="metadata" src="../overlay.mp4"></video></div>\n'
  )


def video_fps(workdir: pathlib.Path) -> float | None:
  """Frames a second of the overlay video; None where it cannot be read."""
  try:
    with av.open(workdir / "overlay.mp4") as file:
      rate = float(file.streams.video[0].average_rate)
  except (OSError, av.FFmpegError, IndexError, TypeError):
    return None
  return rate if rate > 0 else None


def data(rows: list[dict[str, Any]], fps: float | None) -> dict[str, Any]:
  """What is known of each frame, in columns; None where it is not known.

  Of a long run some frames are left out, evenly, key frames last.

  Args:
    rows: of metrics.jsonl.
    fps: of the video, in which the n-th picture is that of the n-th row.
  """
  unique = {row["t"]: (i, row) for i, row in enumerate(rows)}
  ordered = [unique[t] for t in sorted(unique)]
  kept = _kept(np.array([bool(row.get("is_key")) for _, row in ordered], bool))
  places, chosen = zip(*(ordered[i] for i in kept), strict=True)
  keys = [i for i, row in enumerate(chosen) if row.get("is_key")]
  key_rows = [chosen[i] for i in keys]
  return {
    "fps": fps,
    "t": [row["t"] for row in chosen],  # R
    "place": list(places),  # R, in the video
    "stride": _column(chosen, "stride"),  # R
    "miou": _column(chosen, "eval_miou"),  # R
    "key": keys,  # K, which of the R they are
    "before": _column(key_rows, "miou_before"),  # K
    "after": _column(key_rows, "miou_after"),  # K
    "updates": _column(key_rows, "num_updates"),  # K
    "learnt": _column(key_rows, "key_t"),  # K, the frame learnt from
  }


def _kept(is_key):
  """Indices of at most MAX_ROWS rows, in order."""
  keys = _evenly(np.flatnonzero(is_key), MAX_ROWS)
  others = _evenly(np.flatnonzero(~is_key), MAX_ROWS - len(keys))
  return np.union1d(keys, others).tolist()


def _evenly(indices, most):
  if len(indices) <= most:
    return indices
  return indices[np.linspace(0, len(indices) - 1, most).astype(int)]


def _column(rows, name):
  """Numbers to three digits, as they are shown."""
  values = (row.get(name) for row in rows)
  return [_short(x) if text.is_number(x) else None for x in values]


def _short(x):
  return round(x, 3) if isinstance(x, float) else x

"""The page about a run: one HTML file that needs nothing but itself.

Reads only what the run left in its folder, so that it can be written again at
any time, also for a run that was killed half-way. Letters: R rows that the page
holds of metrics.jsonl, K key frames among them.
"""

import pathlib
from typing import Any

import av
import numpy as np

from ojd.formats import run_files
from ojd.report import pages, run_results, run_tables, values
from ojd.report.run_results import Run

MAX_ROWS = 5000  # a page of them is as quick as one of a hundred
_NUMBERS = (
  *("num_frames", "num_key_frames", "key_frame_fraction", "num_updates"),
  *("eval_frames", "fps", "speedup_measured", "speedup_paper_model"),
  *(
    "peak_memory_mb",
    "mean_delay_frames",
    "num_cached_labels",
    "num_rolled_back",
  ),
  *("num_skipped", "teacher_failures", "interrupted"),
)
_OF_LINK = ("up_kbps", "down_kbps", "mean_staleness", "fps")
# What a caption says of a frame, besides its index.
_OF_FRAME = ("num_updates", "delay", "staleness", "eval_miou", "stride")


def write(workdir: pathlib.Path) -> pathlib.Path:
  """Writes `report/index.html` from the other files; returns its path."""
  return write_run(run_results.read(workdir))


def write_run(run: Run) -> pathlib.Path:
  """Writes the page of a run into its workdir; returns its path."""
  target = run.workdir / run_files.REPORT / "index.html"
  pages.write(target, "run.html", **_content(run))
  return target


def _content(run):
  """All that the template has names for."""
  miou, link = (values.mapping(run.summary, x) for x in ("miou", "link"))
  threshold = values.number(run.flags.get("a_thresh"))
  return {
    "stream": run.flags.get("stream") or "run",
    "is_finished": bool(run.summary.get("finished")),
    "numbers": _numbers(run.summary, _NUMBERS),
    "miou": values.number(miou.get("mean")),
    "reference": miou.get("reference") or "reference",
    "link": _numbers(link, _OF_LINK) if link else None,
    "fork": run_tables.fork(run),
    "has_video": (run.workdir / run_files.OVERLAY).exists(),
    "charts": _charts(run, threshold) if run.rows else None,
    "threshold": threshold,
    "has_parent": bool(run.parent_rows),
    "data": frame_data(run.rows, _video_fps(run.workdir)) if run.rows else None,
    "key_pictures": _key_pictures(run),
    "classes": run_tables.classes(run),
    "times": run_tables.times(run),
    "costs": run_tables.costs(run),
    "disk": run_tables.disk(run),
    "samples": _samples(run),
    # Lines break between arguments, never at a hyphen.
    "command": str(run.config.get("command") or "").split(" "),
    "settings": run_tables.settings(run),
  }


def _numbers(content, names):
  """Those of a mapping by name; None for what is no number."""
  return {name: values.number(content.get(name)) for name in names}


def _charts(run, threshold):
  """Everything over the frames."""
  # Half a second to import, for which no run waits at its start.
  from ojd.report import charts

  series, beside = charts.read_series(run.rows), None
  if run.parent_rows:
    beside = charts.read_series(run.parent_rows)
  draw = lambda width, prefix: charts.draw_run(
    series, width=width, threshold=threshold, prefix=prefix, beside=beside
  )
  return charts.for_screens(draw, 10.5)


def _key_pictures(run):
  """The pictures of key frames in order, and which has the greatest gain."""
  rows = {row["t"]: row for row in run.rows if row.get("is_key")}
  found = []
  for path in _pictures(run, "keys"):
    row = rows.get(int(path.stem)) if path.stem.isdecimal() else None
    address = pages.image_address(path) if row else ""
    if address:
      found.append({"address": address, **_key_frame(row)})
  best = max((picture["gain"] for picture in found), default=0.0)
  for picture in found:
    picture["is_best"] = 0 < best == picture["gain"]
  return found


def _key_frame(row):
  names = ("miou_before", "miou_after", "num_updates")
  before, after, updates = (values.number(row.get(name)) for name in names)
  is_late = values.is_number(row.get("key_t"))
  return {
    "t": row["key_t"] if is_late else row["t"],
    "learned_at": row["t"] if is_late else None,
    "before": before,
    "after": after,
    "gain": 0.0 if None in (before, after) else after - before,
    "updates": updates,
  }


def _samples(run):
  """The sample frames in order, with what is known of each."""
  rows = {row["t"]: row for row in run.rows}
  found = []
  for path in _pictures(run, "frames"):
    address = pages.image_address(path)
    t = int(path.stem) if path.stem.isdecimal() else None
    row = rows.get(t, {})
    if address:
      found.append(
        {
          "address": address,
          "label": path.stem if t is None else f"frame {t}",
          "is_key": bool(row.get("is_key")),
          **_numbers(row, _OF_FRAME),
        }
      )
  return found


def _pictures(run, kind):
  return sorted((run.workdir / run_files.REPORT / kind).glob("*.jpg"))


def _video_fps(workdir):
  """Frames a second of the overlay video; None where it cannot be read."""
  try:
    with av.open(workdir / run_files.OVERLAY) as file:
      rate = float(file.streams.video[0].average_rate)
  except (OSError, av.FFmpegError, IndexError, TypeError):
    return None
  return rate if rate > 0 else None


def frame_data(rows: list[dict[str, Any]], fps: float | None) -> dict[str, Any]:
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
    "learned": _column(key_rows, "key_t"),  # K, the frame learned from
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
  found = (values.number(row.get(name)) for row in rows)
  return [round(x, 3) if isinstance(x, float) else x for x in found]

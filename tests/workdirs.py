"""Folders as runs leave them, made up in milliseconds."""

import json
import math
import pathlib

import numpy as np

from ojd.run import overlay, sinks

NAMES = ("background", "person")
FPS = 25.0


def rows(num_frames=60, every=10, skipped=(), offset=0.0):
  """Lines of metrics.jsonl; each frame has numbers of its own."""
  made = []
  for t in sorted(set(range(num_frames)) - set(skipped)):
    miou = 0.5 + offset + 0.3 * math.sin(t / 9) + t / 1e4
    row = {"t": t, "is_key": False, "num_updates": 0, "stride": every}
    row |= {"eval_miou": miou, "ms_predict": 20.0}
    if t % every == 0:
      row |= {"is_key": True, "num_updates": t // every}
      row |= {"miou_before": 0.3 + t / 1e3, "miou_after": 0.6 + t / 1e3}
    made.append(row)
  return made


def summary(lines, **numbers):
  """The content of summary.json."""
  keys = [row for row in lines if row["is_key"]]
  return {
    "finished": True,
    "num_frames": len(lines),
    "num_key_frames": len(keys),
    "key_frame_fraction": len(keys) / len(lines),
    "num_updates": sum(row["num_updates"] for row in keys),
    "miou": {"mean": 0.625, "per_class": {"person": 0.625}},
    "eval_frames": len(lines),
    "fps": 25.0,
    "speedup_measured": 7.5,
    "speedup_paper_model": 6.5,
  } | numbers


def config(identity=None, **flags):
  """The content of config.json; with the stream's identity where one is."""
  return {
    **({} if identity is None else {"stream": identity}),
    "flags": {"stream": "folder:here", "system": "jit"} | flags,
    "command": "python -m experiments.online_distill --stream='a b' && x",
    "class_names": list(NAMES),
  }


def make(path: pathlib.Path, lines=None, numbers=None, **flags):
  """Writes a workdir without pictures; returns its path."""
  lines = rows() if lines is None else lines
  path.mkdir(parents=True)
  about = json.dumps(config(**flags))
  (path / "config.json").write_text(about)
  numbers = json.dumps(summary(lines, **numbers or {}))
  (path / "summary.json").write_text(numbers)
  words = "".join(json.dumps(row) + "\n" for row in lines)
  (path / "metrics.jsonl").write_text(words)
  return path


def grey_level(t):
  """How bright the frame t of the video is."""
  return 20 + 3.5 * t


def add_video(path: pathlib.Path, lines, height=64, width=160):
  """An overlay video in whose first panel one can see which frame it is."""
  video = sinks.OverlayVideo(sinks.Place(path, FPS, NAMES))
  classes = np.zeros((height, width), np.uint8)
  for row in lines:
    t, names = row["t"], ("is_key", "num_updates", "stride")
    frame = np.full((height, width, 3), round(grey_level(t)), np.uint8)
    caption = overlay.Caption(
      t=t,
      **{name: row[name] for name in names},
      **{"miou": None, "reference_title": "truth", "seconds": t / FPS},
    )
    video.write(overlay.FrameImages(frame, classes, classes, caption))
  video.close()

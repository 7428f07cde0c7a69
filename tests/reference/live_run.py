"""A made-up run that fills a live display as the host loop does."""

import numpy as np

from ojd.run import overlay, stats
from ojd.run.runner import About
from ojd.serve.display import LiveDisplay

NAMES = ("background", "person", "<b>car</b>")


def record(t: int, height: int = 48, width: int = 64) -> overlay.FrameImages:
  """A frame whose upper left pixels are as bright as its number."""
  frame = np.full((height, width, 3), t % 256, np.uint8)
  classes = np.zeros((height, width), np.uint8)
  classes[height // 4 :, width // 4 : width // 2] = 1 + t % 2
  caption = overlay.Caption(t, t % 8 == 0, 3, 8, 0.5, "truth", t / 25)
  return overlay.FrameImages(frame, classes, classes, caption)


def line(t: int) -> dict:
  """What metrics.jsonl would hold of a frame."""
  is_key = t % 8 == 0
  miou = 0.9 - 0.6 * np.exp(-t / 40) + 0.03 * np.sin(t / 3)
  stride = 8 if t < 80 else 16
  made = {"t": t, "is_key": is_key, "stride": stride, "eval_miou": miou}
  return made | {"num_updates": max(0, 8 - t // 16) if is_key else 0}


def progress(num_frames: int, problem: str = "", **seconds) -> stats.Progress:
  """The counts after so many frames, two of which were skipped."""
  return stats.Progress(
    **{"num_frames": num_frames, "num_keys": 1 + num_frames // 8},
    **{"num_updates": 2 * num_frames, "num_skipped": 2, "total": 300},
    **{"num_teacher_failures": 1, "miou": 0.625, "fps": 31.25, "stride": 16},
    problem=problem,
    seconds=seconds or {"predict": 1.5, "learn": 0.25},
  )


def begin(display: LiveDisplay) -> None:
  """What is run."""
  display.begin(About("folder:clip", "jit", NAMES))


def step(display: LiveDisplay, t: int) -> None:
  """One frame."""
  display.line(line(t))
  display.put(record(t))
  display.progress(progress(t + 1))


SUMMARY = {
  **{"finished": True, "num_frames": 300, "num_key_frames": 20},
  **{"num_updates": 90, "fps": 40.0, "speedup_measured": None},
  "speedup_paper_model": 11.5,
  "miou": {
    **{"mean": 0.75, "reference": "truth"},
    "per_class": {"person": 0.8125, "<b>car</b>": None},
  },
}

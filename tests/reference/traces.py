"""What streams ask of a fleet, made by hand."""

import numpy as np

from ojd.fleet.trace import KeyFrames, Trace


def by_hand(fps, interval, teacher, **other) -> Trace:
  """What is one number is so for all key frames; times are in ms."""
  interval = np.atleast_1d(np.asarray(interval, np.int64))
  given = {"learn": 0.0, "stride": 1, "num_updates": 1, "predict": 0.0}
  given |= {"before": 0.5, "after": 0.5} | other
  column = lambda x: np.broadcast_to(np.asarray(x), interval.shape)
  keys = KeyFrames(
    interval=interval,
    stride=column(given["stride"]),
    num_updates=column(given["num_updates"]),
    ms_teacher=column(teacher),
    ms_learn=column(given["learn"]),
    miou_before=column(given["before"]),
    miou_after=column(given["after"]),
    miou_next=column(given.get("following", given["before"])),
  )
  return Trace(fps, given["predict"], keys, {})

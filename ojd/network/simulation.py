"""Simulated frames, messages and waiting, on the clock of a device.

A device takes frames as they come, or as fast as it can where it is behind. A
server does one thing after the other. Moments are seconds of the stream.
"""

import math
from typing import Any, NamedTuple

from ojd.network import link as link_lib
from ojd.network.conditions import Pace
from ojd.network.link import DOWN, UP, LinkState

_MAX_FRAME = 2**31 - 2


class Rules(NamedTuple):
  """What does not change."""

  fps: float  # of the stream
  pace: Pace
  wait_after: int | None = None  # frames from a key; None: nobody waits


class Timeline(NamedTuple):
  """What has happened so far."""

  network: LinkState
  clock: float = 0.0  # of the device, when it began its frame
  waited: float = 0.0  # seconds that it stood still
  server_free: float = 0.0  # when the server has done what it was sent
  arrival: int = 0  # the frame on which what was sent last is held
  wait_frame: int = -1  # before which the device waits
  wait_until: float = 0.0  # for this moment
  num_updates: int = 0  # that were sent
  staleness: int = 0  # frames from key to arrival, of all together
  max_staleness: int = 0


def begin_frame(rules: Rules, timeline: Timeline, t: int) -> Timeline:
  """The device comes to frame t, from the one before."""
  clock, waited = _clock_at(rules, timeline, t, max(t - 1, 0)), timeline.waited
  if t == timeline.wait_frame:
    waited += max(0.0, timeline.wait_until - clock)
    clock = max(clock, timeline.wait_until)
  return timeline._replace(clock=clock, waited=waited)


def send_frames(
  rules: Rules,
  timeline: Timeline,
  num_bytes: int,
  num_frames: int,
  num_updates: int,
) -> Timeline:
  """A message with frames goes up, and the server works on them.

  Args:
    rules: what does not change.
    timeline: at the frame at hand.
    num_bytes: of the message.
    num_frames: that the teacher labels.
    num_updates: of the student, then.
  """
  network, there = link_lib.send(
    timeline.network, UP, num_bytes, timeline.clock
  )
  pace = rules.pace
  busy = num_frames * pace.teacher_ms + num_updates * pace.update_ms
  free = max(there, timeline.server_free) + 1e-3 * busy
  return timeline._replace(network=network, server_free=free)


def send_update(
  rules: Rules, timeline: Timeline, t: int, num_bytes: int
) -> tuple[Timeline, int]:
  """A message with what was learned of key frame t goes down.

  Returns:
    The timeline, and how many frames after t the device holds it.
  """
  leaves = max(timeline.clock, timeline.server_free)
  network, there = link_lib.send(timeline.network, DOWN, num_bytes, leaves)
  frame, latest = _frame_at(rules, timeline, t, there), rules.wait_after
  if latest is not None and frame > t + latest:
    frame = t + latest
    timeline = timeline._replace(wait_frame=frame, wait_until=there)
  delay = frame - t
  timeline = timeline._replace(
    network=network,
    arrival=frame,
    num_updates=timeline.num_updates + 1,
    staleness=timeline.staleness + delay,
    max_staleness=max(timeline.max_staleness, delay),
  )
  return timeline, delay


def _clock_at(rules, timeline, t, now):
  """When the device comes to frame t, if it is at frame `now`."""
  busy = 1e-3 * (t - now) * rules.pace.device_ms
  return max(timeline.clock + busy, t / rules.fps)


def _frame_at(rules, timeline, t, moment):
  """The first frame after t that the device does not begin before."""
  frame, device = math.ceil(moment * rules.fps), 1e-3 * rules.pace.device_ms
  if device:
    frame = min(frame, t + math.ceil((moment - timeline.clock) / device))
  frame = min(max(frame, t + 1), _MAX_FRAME)
  while frame < _MAX_FRAME and _clock_at(rules, timeline, frame, t) < moment:
    frame += 1  # what rounding has taken
  return frame


def summary(
  rules: Rules, timeline: Timeline, num_frames: int
) -> dict[str, Any]:
  """What became of so many frames, as JSON."""
  seconds = timeline.clock + 1e-3 * rules.pace.device_ms
  seconds = max(seconds, num_frames / rules.fps)
  network, num = timeline.network, timeline.num_updates
  each = lambda x: round(x / seconds, 3) if seconds else 0.0
  return {
    "seconds": round(seconds, 3),
    "fps": each(num_frames),
    "up_bytes": network.up.num_bytes,
    "down_bytes": network.down.num_bytes,
    "resent_bytes": network.up.num_resent + network.down.num_resent,
    "up_kbps": each(8e-3 * network.up.num_bytes),
    "down_kbps": each(8e-3 * network.down.num_bytes),
    "num_sent": num,
    "mean_staleness": round(timeline.staleness / num, 3) if num else None,
    "max_staleness": timeline.max_staleness,
    "waited_seconds": round(timeline.waited, 3),
  }


def dump(timeline: Timeline) -> dict[str, Any]:
  """The timeline as JSON has it."""
  return timeline._asdict() | {"network": link_lib.dump(timeline.network)}


def load(content: dict[str, Any]) -> Timeline:
  """The timeline that was dumped."""
  return Timeline(**content | {"network": link_lib.load(content["network"])})

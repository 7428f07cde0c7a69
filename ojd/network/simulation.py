"""A simulated network between a device and its server, in stream time.

A device takes frames as they come, or as fast as it can if it is behind. A
server does one thing after another. Times are seconds of the stream.

A direction carries one message after another: the next waits until the line is
free. A message is packets of 1,400 bytes. Lost packets are sent again a round
trip later, all in one round, until none is lost; meanwhile others may use the
line, but none arrives before it. After its last byte has left, a message needs
half a round trip and a jitter. During an outage nothing moves.

The draws of a message follow from the seed, the direction and its number there,
so that a run that resumes meets the same network.
"""

import math
from typing import Any, NamedTuple

import msgspec
import numpy as np

UP, DOWN = "up", "down"
PACKET_BYTES = 1400
_MAX_FRAME = 2**31 - 2


class Pace(NamedTuple):
  """How long something takes, in milliseconds of the stream's time."""

  teacher_ms: float = 0.0  # a frame that the server labels
  update_ms: float = 0.0  # an update of the student there
  device_ms: float = 0.0  # a frame on the device


class Link(NamedTuple):
  """The parameters of a network; by default there is no delay.

  `ojd.network.conditions` reads one and bounds its numbers.
  """

  up_mbps: float | None = None  # 10^6 bits a second; None: as fast as may be
  down_mbps: float | None = None
  rtt_ms: float = 0.0
  jitter_ms: float = 0.0  # a message's own is anything up to it
  loss: float = 0.0  # of a packet, a probability
  outages: tuple[tuple[float, float], ...] = ()  # (start, end), seconds


class Line(NamedTuple):
  """One direction."""

  free_at: float = 0.0  # when the next message may be begun, seconds
  last_arrival: float = 0.0
  num_messages: int = 0
  num_bytes: int = 0  # of the messages
  num_resent: int = 0  # bytes that were sent again


class LinkState(NamedTuple):
  """The state of a network."""

  link: Link
  seed: int
  up: Line
  down: Line


def init(link: Link, seed: int = 0) -> LinkState:
  """The state before any message; the seed is 0 or more."""
  return LinkState(link, seed, Line(), Line())


def send(
  state: LinkState, direction: str, num_bytes: int, now: float
) -> tuple[LinkState, float]:
  """Sends a message.

  Args:
    state: of the network.
    direction: UP or DOWN.
    num_bytes: of the message, 0 or more.
    now: seconds of the stream.

  Returns:
    The state afterwards, and when the message is there: not before those sent
    earlier in its direction.
  """
  if num_bytes < 0 or not math.isfinite(now):
    raise ValueError(f"{num_bytes} bytes at {now} s")
  link, line = state.link, getattr(state, direction)
  mbps = link.up_mbps if direction == UP else link.down_mbps
  rng = np.random.default_rng(
    (state.seed, int(direction == UP), line.num_messages)
  )
  num_resent, num_rounds = _losses(num_bytes, link.loss, rng)
  busy = 0.0 if mbps is None else 8e-6 * (num_bytes + num_resent) / mbps
  delay = link.rtt_ms * (0.5 + num_rounds) + link.jitter_ms * rng.random()
  left = _later(max(now, line.free_at), busy, link.outages)
  arrival = max(_later(left, 1e-3 * delay, link.outages), line.last_arrival)
  line = Line(
    free_at=left,
    last_arrival=arrival,
    num_messages=line.num_messages + 1,
    num_bytes=line.num_bytes + num_bytes,
    num_resent=line.num_resent + num_resent,
  )
  return state._replace(**{direction: line}), arrival


def _losses(num_bytes, loss, rng):
  """(bytes sent again, how often there was something to be sent again)."""
  num_lost, num_resent, num_rounds = -(-num_bytes // PACKET_BYTES), 0, 0
  while loss and (num_lost := int(rng.binomial(num_lost, loss))):
    num_resent += num_lost * min(PACKET_BYTES, num_bytes)
    num_rounds += 1
  return num_resent, num_rounds


def _later(begin, seconds, outages):
  """The end of something that takes so long and pauses during outages."""
  for start, end in outages:
    if begin >= end:
      continue
    if begin + seconds <= start and begin < start:
      break
    seconds -= max(start - begin, 0.0)
    begin = end
  return begin + seconds


class Rules(NamedTuple):
  """The constants of a timeline."""

  fps: float  # of the stream
  pace: Pace
  wait_after: int | None = None  # frames from a key; None: no waiting


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
  network, there = send(timeline.network, UP, num_bytes, timeline.clock)
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
  network, there = send(timeline.network, DOWN, num_bytes, leaves)
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
  """The numbers of so many frames, as JSON."""
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


def dump(timeline: Timeline) -> Any:
  """The timeline as JSON has it, with every number as it is."""
  return msgspec.to_builtins(timeline)


def load(content: Any) -> Timeline:
  """The timeline that was dumped."""
  return msgspec.convert(content, Timeline)

"""A simulated network, in stream time.

A direction carries one message after the other: the next waits until the line
is free. A message is packets of 1,400 bytes. Those that are lost are sent again
a round trip later, all in one round, until none is; meanwhile others may use
the line, but none arrives before it. After its last byte has left, a message
needs half a round trip and a jitter. During an outage nothing moves: what is to
be sent and what is on its way wait until its end.

The draws of a message follow from the seed, the direction and its number there,
so that a run that is taken up again meets the same network.
"""

import math
from typing import Any, NamedTuple

import numpy as np

UP, DOWN = "up", "down"
PACKET_BYTES = 1400


class Link(NamedTuple):
  """What a network is like; as it is by default, everything is there at once.

  `ojd.network.conditions` reads one and says what its numbers may be.
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
  last_arrival: float = -math.inf
  num_messages: int = 0
  num_bytes: int = 0  # of the messages
  num_resent: int = 0  # bytes that were sent again


class LinkState(NamedTuple):
  """A network in use."""

  link: Link
  seed: int
  up: Line
  down: Line


def init(link: Link, seed: int = 0) -> LinkState:
  """A network that nothing was sent over; the seed is 0 or more."""
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
  """When something that takes so long is done, if it rests during outages."""
  for start, end in outages:
    if begin >= end:
      continue
    if begin + seconds <= start and begin < start:
      break
    seconds -= max(start - begin, 0.0)
    begin = end
  return begin + seconds


def dump(state: LinkState) -> dict[str, Any]:
  """The state as JSON has it, with every number as it is."""
  content = {"link": state.link._asdict(), "seed": state.seed}
  for direction in (UP, DOWN):
    line = getattr(state, direction)._asdict()
    if not line["num_messages"]:
      line["last_arrival"] = None  # JSON has no infinity
    content[direction] = line
  content["link"]["outages"] = [list(x) for x in state.link.outages]
  return content


def load(content: dict[str, Any]) -> LinkState:
  """The state that was dumped."""
  link = Link(**content["link"])
  outages = tuple((start, end) for start, end in link.outages)
  lines = []
  for direction in (UP, DOWN):
    line = Line(**content[direction])
    if line.last_arrival is None:
      line = line._replace(last_arrival=-math.inf)
    lines.append(line)
  return LinkState(link._replace(outages=outages), content["seed"], *lines)

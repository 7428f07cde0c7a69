"""Which frames of a stream a device sends up, and whether it waits for news.

A plan is a value: whoever plays the stream reads it without waiting for whoever
speaks to the server.
"""

import math
from typing import NamedTuple


class Plan(NamedTuple):
  """What is agreed with the server at this moment."""

  is_ready: bool = False  # there is a server, and it has said Welcome
  stride: int = 0  # frames from key frame to key frame
  sampling_rate: float = 0.0  # frames a second, where there is a period
  training_period: float = 0.0  # seconds from message to message; 0: by stride
  key_t: int | None = None  # the latest key frame that was sent
  sent_at: float = 0.0  # on the clock of the wall
  is_awaiting: bool = False  # the answer to it
  is_overdue: bool = True  # the next frame is a key frame, whatever the stride
  sample_time: float = -math.inf  # of the latest sample, by the stream's time


def wants(plan: Plan, t: int, time: float, now: float, patience: float) -> bool:
  """Whether frame t is to be sent.

  Args:
    plan: of this moment.
    t: of the frame.
    time: of the frame, seconds of the stream.
    now: on the clock of the wall.
    patience: seconds after which an answer is no longer waited for.
  """
  if not plan.is_ready:
    return False
  if plan.training_period > 0:
    interval = 1 / max(plan.sampling_rate, 1e-3)
    # A clock that was set back begins anew.
    return not plan.sample_time <= time < plan.sample_time + interval - 1e-6
  if plan.is_awaiting:
    return now - plan.sent_at >= patience
  return plan.is_overdue or plan.key_t is None or is_due(plan, t)


def is_due(plan: Plan, t: int) -> bool:
  """Whether the stride is over; it is where the stream began again."""
  return t >= plan.key_t + plan.stride or t < plan.key_t


def is_stale(plan: Plan, t: int, most: int) -> bool:
  """Whether a device that waits at all waits now, before frame t."""
  if not (plan.is_ready and plan.is_awaiting and plan.key_t is not None):
    return False
  return plan.training_period == 0 and t - plan.key_t >= most


def sent(plan: Plan, t: int, now: float) -> Plan:
  """A key frame goes up."""
  return plan._replace(key_t=t, sent_at=now, is_awaiting=True, is_overdue=False)


def answered(plan: Plan, schedule) -> Plan:
  """An update came; from here on by its schedule (`weights.Schedule`)."""
  return scheduled(plan, schedule)._replace(is_awaiting=False)


def scheduled(plan: Plan, schedule) -> Plan:
  """The same plan by another schedule."""
  return plan._replace(
    stride=schedule.stride,
    sampling_rate=schedule.sampling_rate,
    training_period=schedule.training_period,
  )


def welcomed(plan: Plan, schedule) -> Plan:
  """There is a server; what was not answered is asked again."""
  is_overdue = plan.is_overdue or plan.is_awaiting
  return scheduled(plan, schedule)._replace(
    is_ready=True, is_awaiting=False, is_overdue=is_overdue
  )


def lost(plan: Plan) -> Plan:
  """There is no server any more."""
  return plan._replace(is_ready=False)

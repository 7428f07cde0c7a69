"""The budget: priorities by hand, and the decisions of its two limiters."""

import time
from concurrent import futures
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from ojd.fleet import budget
from ojd.fleet.budget import Estimate, RateLimitedLabeler, Request, TokenBucket
from ojd.teachers import labelers
from ojd.types import Sample


def test_a_student_falls_as_it_fell():
  estimate = budget.updated(Estimate(), 10.0, 0.2, 0.9)
  assert estimate == Estimate(0.9, 10.0, 0.0)
  estimate = budget.updated(estimate, 14.0, 0.5, 0.8)
  # 0.4 in 4 s
  assert estimate.time == 14.0 and estimate.accuracy == 0.8
  assert abs(estimate.fall - 0.1) < 1e-12
  wanted = budget.request(estimate, 15.0, 17.0)
  assert wanted.since == 15.0
  assert abs(wanted.accuracy - 0.5) < 1e-12 and abs(wanted.gain - 0.3) < 1e-12
  # It has no more to lose than it had.
  assert budget.request(estimate, 15.0, 1000.0) == Request(15.0, 0.0, 0.8)
  # One that rose is not believed to rise on.
  assert budget.updated(estimate, 20.0, 0.95, 0.97).fall == 0.0


def test_who_is_below_goes_first_and_then_who_gains_most():
  requests = {
    "fine, gains much": Request(0.0, 0.9, 0.5),
    "fine, gains little": Request(0.0, 0.85, 0.1),
    "below, gains little": Request(1.0, 0.7, 0.05),
    "below, gains much": Request(2.0, 0.3, 0.4),
    "never updated": budget.request(Estimate(), 2.0, 2.0),
  }
  order = budget.by_priority(requests, 3.0, threshold=0.8, timeout=10.0)
  assert order == [
    *("never updated", "below, gains much", "below, gains little"),
    *("fine, gains much", "fine, gains little"),
  ]
  # Whoever has waited for long goes before all, the longest first.
  order = budget.by_priority(requests, 11.5, threshold=0.8, timeout=10.0)
  assert order[:3] == [
    *("fine, gains little", "fine, gains much", "below, gains little")
  ]


def test_tokens_come_at_their_rate_and_are_not_hoarded():
  bucket = budget.full_bucket(2.0, 5.0)
  assert bucket == TokenBucket(3.0, 5.0)
  bucket = budget.refilled(bucket._replace(tokens=0.0), 2.0, 5.25)
  assert bucket == TokenBucket(0.5, 5.25)
  assert budget.refilled(bucket, 2.0, 100.0) == TokenBucket(3.0, 100.0)
  # A clock that goes back brings nothing.
  assert budget.refilled(bucket, 2.0, 5.0) == TokenBucket(0.5, 5.25)
  # Less than one call a second is still a call now and then.
  slow = budget.full_bucket(0.1, 0.0)._replace(tokens=0.0)
  assert budget.refilled(slow, 0.1, 20.0).tokens == 1.1


@settings(max_examples=30, deadline=None)
@given(
  falls=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=12),
  rate=st.floats(0.2, 20.0),
)
def test_nobody_waits_for_ever(falls, rate):
  """Streams that always want the teacher, some of whom always gain more."""
  names = [str(i) for i in range(len(falls))]
  estimates = {
    name: Estimate(0.9, 0.0, fall)
    for name, fall in zip(names, falls, strict=True)
  }
  since = dict.fromkeys(names, 0.0)
  longest_wait = budget.timeout(len(names), rate)
  bucket, longest, granted, step = budget.full_bucket(rate, 0.0), 0.0, 0, 0.05
  seconds = 6 * longest_wait + 2
  for tick in range(int(seconds / step)):
    now = tick * step
    bucket = budget.refilled(bucket, rate, now)
    requests = {n: budget.request(estimates[n], since[n], now) for n in names}
    order = budget.by_priority(requests, now, 0.8, longest_wait)
    for name in order[: int(bucket.tokens)]:
      longest = max(longest, now - since[name])
      bucket = bucket._replace(tokens=bucket.tokens - 1)
      since[name], granted = now, granted + 1
      estimates[name] = estimates[name]._replace(time=now)
  longest = max(longest, *(seconds - step - x for x in since.values()))
  # Whose longest_wait is over has at most all others before it.
  assert longest <= longest_wait + len(names) / rate + 2 / rate + 2 * step
  # And no call is lost, but those of the beginning.
  assert granted >= rate * (seconds - step) - 2


def _play(**pace):
  """Eight seconds of streams of 4 fps that want the teacher on each frame.

  `bad` falls to nothing between two updates. `pace`: seconds a frame takes.
  """
  shared = budget.StreamTimeLimiter(2.0, list(pace), 0.8)
  granted_at = {name: [] for name in pace}

  def live(name):
    for t in range(32):
      time.sleep(pace[name])
      line = {}
      if shared.acquire(name, t / 4):
        granted_at[name].append(t)
        before = 0.2 if name == "bad" else 0.9
        line = {"miou_before": before, "miou_after": 0.95}
      shared.advance(name, line, (t + 1) / 4)
    shared.leave(name)

  with futures.ThreadPoolExecutor(len(pace)) as pool:
    list(pool.map(live, pace))
  return granted_at, shared


def test_decisions_follow_from_the_streams_alone():
  even, shared = _play(bad=0.0, good=0.0, fine=0.0)
  uneven, _ = _play(bad=0.003, good=0.0, fine=0.001)
  assert even == uneven
  granted = sum(map(len, even.values()))
  assert shared.num_granted == granted
  assert shared.num_granted + shared.num_deferred == 3 * 32
  # Two calls a second until the last frame, and three that were saved up.
  assert granted == 3 + int(2 * (8 - 0.25))
  # Who gains most has most; nobody waits longer than three seconds for one.
  assert len(even["bad"]) > 2 * max(len(even["good"]), len(even["fine"]))
  for name in ("good", "fine"):
    gaps = [b - a for a, b in zip(even[name], even[name][1:], strict=False)]
    assert even[name] and max(gaps, default=0) <= 4 * (3 + 2)


def test_a_stream_that_is_over_is_not_waited_for():
  shared = budget.StreamTimeLimiter(1.0, ["a", "b"], 0.8)
  with futures.ThreadPoolExecutor(1) as pool:
    found = pool.submit(shared.acquire, "a", 1.0)
    time.sleep(0.05)
    assert not found.done()  # b is still at its beginning
    shared.leave("b")
    assert found.result(5)


def test_by_the_clock_the_more_urgent_one_is_waited_for_a_while():
  now = [0.0]
  shared = budget.ClockLimiter(1.0, ["a", "b", "c"], 0.8, clock=lambda: now[0])

  def ask(moment, name):
    now[0] = moment
    return shared.acquire(name, 0.0)

  # The first token is there, the others come one a second.
  for begin in (0.0, 10.0):
    for i, (name, before) in enumerate((("a", 0.9), ("b", 0.1), ("c", 0.9))):
      assert ask(begin + i, name)
      shared.advance(name, {"miou_before": before, "miou_after": 0.9}, 0.0)
  assert ask(12.6, "b"), "one token was saved up"
  assert not ask(12.7, "b"), "0.7 of a token"
  assert not ask(13.1, "a"), "b is more urgent"
  assert ask(13.1, "b")
  assert ask(14.2, "a")
  # One that has not asked for long does not keep the others waiting.
  assert ask(20.0, "c")


def test_the_teacher_is_asked_only_where_the_limiter_lets_it():
  inner, lets = mock.Mock(is_free=False), mock.Mock()
  inner.answer.return_value = labelers.Answer(None, "labels", "", 0.5, 0.25)
  lets.acquire.side_effect = lambda name, seconds: seconds >= 1.0
  gated = RateLimitedLabeler(inner, lets, "cam", fps=10.0)
  gated.ask(Sample(9, None, None))
  answer = gated.answer(wait=True)
  assert (answer.labels, answer.problem) == (None, labelers.DEFERRED)
  gated.ask(Sample(10, None, None))
  answer = gated.answer(wait=True)
  assert answer.labels == "labels" and answer.waited >= 0.25
  assert gated.poll() == inner.poll.return_value
  gated.close()
  assert inner.ask.call_args_list == [mock.call(Sample(10, None, None))]
  assert {x.args[0] for x in lets.acquire.call_args_list} == {"cam"}
  inner.close.assert_called_once_with()

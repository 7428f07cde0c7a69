"""The purse: the same decisions by the streams' time, at once by the clock."""

import time
from concurrent import futures
from unittest import mock

from ojd.fleet import purse
from ojd.fleet.gate import Gated
from ojd.teachers import labelers
from ojd.types import Sample


def _play(**pace):
  """Eight seconds of streams of 4 fps that want the teacher on each frame.

  `bad` falls to nothing between two lessons. `pace`: seconds a frame takes.
  """
  shared = purse.StreamPurse(2.0, list(pace), 0.8)
  told = {name: [] for name in pace}

  def live(name):
    for t in range(32):
      time.sleep(pace[name])
      line = {}
      if shared.ask(name, t / 4):
        told[name].append(t)
        before = 0.2 if name == "bad" else 0.9
        line = {"miou_before": before, "miou_after": 0.95}
      shared.moved(name, line, (t + 1) / 4)
    shared.left(name)

  with futures.ThreadPoolExecutor(len(pace)) as pool:
    list(pool.map(live, pace))
  return told, shared


def test_decisions_follow_from_the_streams_alone():
  even, shared = _play(bad=0.0, good=0.0, fine=0.0)
  uneven, _ = _play(bad=0.003, good=0.0, fine=0.001)
  assert even == uneven
  granted = sum(map(len, even.values()))
  assert shared.num_granted == granted
  assert shared.num_granted + shared.num_deferred == 3 * 32
  # Two calls a second until the last frame, and three that were saved up.
  assert granted == 3 + int(2 * (8 - 0.25))
  # Who gains most has most; patience is three seconds, so all have some.
  assert len(even["bad"]) > 2 * max(len(even["good"]), len(even["fine"]))
  for name in ("good", "fine"):
    gaps = [b - a for a, b in zip(even[name], even[name][1:], strict=False)]
    assert even[name] and max(gaps, default=0) <= 4 * (3 + 2)


def test_a_stream_that_is_over_is_not_waited_for():
  shared = purse.StreamPurse(1.0, ["a", "b"], 0.8)
  with futures.ThreadPoolExecutor(1) as pool:
    found = pool.submit(shared.ask, "a", 1.0)
    time.sleep(0.05)
    assert not found.done()  # b is still at its beginning
    shared.left("b")
    assert found.result(5)


def test_by_the_clock_the_needier_one_is_waited_for_a_while():
  now = [0.0]
  shared = purse.WallPurse(1.0, ["a", "b", "c"], 0.8, clock=lambda: now[0])

  def ask(moment, name):
    now[0] = moment
    return shared.ask(name, 0.0)

  # The first coin is there, the others come one a second.
  for begin in (0.0, 10.0):
    for i, (name, before) in enumerate((("a", 0.9), ("b", 0.1), ("c", 0.9))):
      assert ask(begin + i, name)
      shared.moved(name, {"miou_before": before, "miou_after": 0.9}, 0.0)
  assert ask(12.6, "b"), "one coin was saved up"
  assert not ask(12.7, "b"), "0.7 of a coin"
  assert not ask(13.1, "a"), "b needs it more"
  assert ask(13.1, "b")
  assert ask(14.2, "a")
  # One that has not asked for long does not keep the others waiting.
  assert ask(20.0, "c")


def test_a_gate_asks_the_teacher_only_where_the_purse_lets_it():
  inner, lets = mock.Mock(is_free=False), mock.Mock()
  inner.answer.return_value = labelers.Answer(None, "labels", "", 0.5, 0.25)
  lets.ask.side_effect = lambda name, seconds: seconds >= 1.0
  gated = Gated(inner, lets, "cam", fps=10.0)
  gated.ask(Sample(9, None, None))
  answer = gated.answer(wait=True)
  assert (answer.labels, answer.problem) == (None, labelers.DEFERRED)
  gated.ask(Sample(10, None, None))
  answer = gated.answer(wait=True)
  assert answer.labels == "labels" and answer.waited >= 0.25
  assert gated.poll() == inner.poll.return_value
  gated.close()
  assert inner.ask.call_args_list == [mock.call(Sample(10, None, None))]
  assert {x.args[0] for x in lets.ask.call_args_list} == {"cam"}
  inner.close.assert_called_once_with()

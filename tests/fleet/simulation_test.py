"""The simulation beside queueing theory, and beside cases worked by hand."""

import functools
import math

import numpy as np
import pytest

from ojd.errors import UserError
from ojd.fleet import simulation
from ojd.fleet import timeline as timeline_lib
from ojd.fleet.simulation import Devices, Pool, Span
from ojd.fleet.timeline import timeline
from tests.reference import traces

_trace = functools.partial(traces.by_hand, 1000.0)  # a frame is 1 ms


def _random(service, size=20_000):
  """Questions of no memory, whose times of service are as given."""
  rng = np.random.default_rng(7)
  intervals = np.ceil(rng.exponential(MEAN_MS, size))
  return _trace(intervals, service(rng, size))


def _run(streams, starts, pool, end, per_device=0):
  which = range(len(streams))
  devices = Devices(streams, which, per_device)
  starts, span = [(moment, 0) for moment in starts], Span(0.0, end)
  return simulation.run(streams, which, starts, pool, span, devices)


def _erlang_c(num_servers, offered):
  """The chance to have to wait in M/M/k, by its sum."""
  terms = [offered**n / math.factorial(n) for n in range(num_servers)]
  last = offered**num_servers / math.factorial(num_servers)
  last *= num_servers / (num_servers - offered)
  return last / (sum(terms) + last)


# 300 streams that ask every 30 s: together 10 a second, as good as at random.
STREAMS, MEAN_MS, SPAN = 300, 30_000, Span(100.0, 4100.0)


@pytest.mark.parametrize(
  ("num_teachers", "service_ms"), [(1, 75.0), (2, 160.0), (5, 350.0)]
)
def test_waits_are_those_of_erlang(num_teachers, service_ms):
  trace = _random(lambda rng, size: rng.exponential(service_ms, size))
  outcome = simulation.simulate(
    [trace], STREAMS, Pool(num_teachers), SPAN, seed=1
  )
  seconds = service_ms / 1e3
  offered = STREAMS / MEAN_MS * 1e3 * seconds
  chance = _erlang_c(num_teachers, offered)
  mean = chance * seconds / (num_teachers - offered)
  assert outcome.waits.mean() == pytest.approx(mean, rel=0.1)
  assert (outcome.waits > 1e-9).mean() == pytest.approx(chance, rel=0.05)
  assert outcome.busy == pytest.approx(offered / num_teachers, rel=0.03)


def test_little_counts_those_who_learn_and_those_who_are_served():
  trace = _random(lambda rng, size: rng.exponential(160.0, size))
  keys = trace.keys._replace(ms_learn=np.full(20_000, 500.0))
  trace = trace._replace(keys=keys)
  outcome = simulation.simulate([trace], STREAMS, Pool(3), SPAN, seed=3)
  rate = len(outcome.waits) / (SPAN.end - SPAN.warm_up)
  served = (outcome.latencies - outcome.waits).mean()
  assert outcome.busy * 3 == pytest.approx(rate * served, rel=0.01)
  assert outcome.learning == pytest.approx(rate * 0.5, rel=1e-6)


def test_two_streams_and_a_teacher_by_hand():
  # A asks at 0 and is answered at 100. B asks at 40, begins at 100, is answered
  # at 300. A asks again at 250: from 300 to 400. B is due at 540.
  a, b = _trace(250, 100.0), _trace(500, 200.0)
  outcome = _run([a, b], [0.0, 0.040], Pool(1), end=0.45)
  np.testing.assert_allclose(outcome.waits, [0, 0.06, 0.05], atol=1e-12)
  np.testing.assert_allclose(outcome.latencies, [0.1, 0.26, 0.15])
  assert outcome.busy == pytest.approx(0.4 / 0.45)
  assert outcome.num_events == 6


def test_batches_by_hand():
  # The first is taken alone, the other two together: 100 + half of 60.
  streams = [_trace(10_000, ms) for ms in (80.0, 60.0, 100.0)]
  outcome = _run(streams, [0.0, 0.01, 0.02], Pool(1, 2, 0.5), end=1.0)
  np.testing.assert_allclose(outcome.waits, [0, 0.07, 0.06], atol=1e-12)
  np.testing.assert_allclose(outcome.latencies, [0.08, 0.2, 0.19])
  assert outcome.busy == pytest.approx(0.08 + 0.13)
  # A batch is no larger than asked for.
  starts = np.arange(5) / 100
  outcome = _run([_trace(10_000, 100.0)] * 5, starts, Pool(1, 3, 0.1), 1.0)
  ends = [0.1, 0.22, 0.22, 0.22, 0.32]
  np.testing.assert_allclose(outcome.latencies, np.subtract(ends, starts))
  # Those who ask at the same moment share one, if not to the last bit.
  streams = [_trace(300, 100.0, stride=100)] * 2
  outcome = _run(streams, [0.1 + 0.2, 0.3], Pool(1, 2, 0.5), end=0.5)
  np.testing.assert_allclose(outcome.latencies, [0.15, 0.15])


def test_a_key_frame_that_is_late_comes_strides_later():
  # Due after 100 ms, learned after 260: at 300, by strides of 100.
  late = _trace(100, 60.0, learn=200.0, stride=100)
  assert timeline(late).period == pytest.approx(0.3)
  outcome = _run([late], [0.0], Pool(1), end=0.65)
  assert len(outcome.waits) == 2 and outcome.num_events == 5
  # In time to the frame is in time.
  exact = _trace(100, 100.0, stride=100)
  assert timeline(exact).period == pytest.approx(0.1)
  assert timeline_lib.next_key(0.3, 0.1 + 0.2, 0.1) == pytest.approx(0.3)


def test_updates_on_a_shared_device_wait_for_each_other():
  # Answered at 10 and 20; half of the device predicts frames, so that updates
  # of 50 take 100: until 110 and 210. Between the two, steps of 0.1.
  options = {"learn": 50.0, "predict": 0.25, **_STEPS}
  streams = [_trace([9000, 1000], 10.0, **options)] * 2
  outcome = _run(streams, [0.0, 0.0], Pool(1), end=1.0, per_device=2)
  lost = 0.1 * (0.11 + 0.21) / (2 * 9)
  assert outcome.lost == pytest.approx(lost)
  # Alone each would have learned after 60.
  assert outcome.lost_waiting == pytest.approx(lost - 0.1 * 0.06 / 9)
  with pytest.raises(UserError, match="takes 1.25 devices"):
    Devices(streams * 3, range(5), 5)


# The first key frame is learned to 0.6, the second to 0.5; nothing is lost.
_STEPS = {"before": [0.5, 0.6], "after": [0.6, 0.5], "following": [0.6, 0.5]}


def test_what_is_held_by_numbers():
  # From 0.8 to 0.6 in a second; before it, from 0.7 to 0.4 in half a second.
  keys = _trace(
    [500, 1000], 1.0, before=[0.6, 0.4], after=[0.7, 0.8], following=[0.4, 0.6]
  )
  for age, delay, span in ((0.5, 0.0, 1.0), (0.2, 0.1, 1.3), (0.4, 2.4, 3.0)):
    t = np.linspace(0, span, 300_001)
    new = np.maximum(0.8 - 0.2 * t, 0.4)
    old = np.maximum(0.7 - 0.6 * (t + age), 0.4)
    wanted = np.trapezoid(np.where(t < delay, old, new), t)
    given = (np.array([x]) for x in (age, delay, span))
    found = timeline_lib.accuracy(keys, np.array([1]), *given)
    np.testing.assert_allclose(found, [wanted], atol=1e-5)
  np.testing.assert_allclose(
    timeline_lib.ideal_accuracy(keys, np.array([0, 1])), [0.5 * 0.55, 0.7]
  )


def _mixed(num=40, seed=3):
  """A trace in which nothing is the same twice."""
  rng = np.random.default_rng(seed)
  before = rng.uniform(0.3, 0.6, num)
  return _trace(
    rng.integers(200, 900, num),
    rng.uniform(20, 60, num),
    learn=rng.uniform(50, 300, num),
    stride=100,
    before=before,
    after=before + rng.uniform(0, 0.3, num),
    following=np.roll(before, -1),
  )


def test_nobody_waits_where_all_have_a_teacher():
  trace = _mixed()
  outcome = simulation.simulate([trace], 50, Pool(50), Span(2, 60), 0)
  assert outcome.waits.max() < 1e-9
  assert outcome.lost_waiting == pytest.approx(0, abs=1e-9)
  assert outcome.lost == pytest.approx(
    timeline_lib.unqueued_loss(timeline(trace)), rel=0.02
  )
  rate = len(outcome.waits) / 58 / 50
  assert rate == pytest.approx(
    1 / timeline_lib.interval([timeline(trace)]), 0.01
  )


def test_streams_may_change_places():
  rng = np.random.default_rng(5)
  streams = [_mixed(seed=seed) for seed in range(7)]
  starts = rng.uniform(0, 0.5, 7)
  plain, other = (
    _run([streams[i] for i in order], starts[order], Pool(1, 2, 0.6), end=20.0)
    for order in (np.arange(7), rng.permutation(7))
  )
  np.testing.assert_allclose(np.sort(plain.waits), np.sort(other.waits))
  assert plain.busy == other.busy
  assert plain.lost == pytest.approx(other.lost)


def test_a_seed_is_a_fleet():
  args = ([_mixed(), _mixed(seed=4)], 30, Pool(2), Span(1, 9))
  one, same, other = (simulation.simulate(*args, seed) for seed in (1, 1, 2))
  np.testing.assert_array_equal(one.waits, same.waits)
  assert one[2:] == same[2:]
  assert one.lost != other.lost


def test_what_a_fleet_asks_for_without_a_queue():
  # 60 ms every 300 ms, and 100 ms every second.
  plays = [
    timeline(_trace(100, 60.0, learn=200.0, stride=100)),
    timeline(_trace(1000, 100.0)),
  ]
  assert timeline_lib.demand(plays, 1, 1.0) == pytest.approx((0.2 + 0.1) / 2)
  # Four in the time of 1 + 3/2.
  assert timeline_lib.demand(plays, 4, 0.5) == pytest.approx(0.15 * 2.5 / 4)
  assert timeline_lib.interval(plays) == pytest.approx(2 / (1 / 0.3 + 1))

"""A simulated network: its arithmetic by hand, and its order."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ojd.network import simulation
from ojd.network.simulation import DOWN, UP, Link, Timeline

_quick = hypothesis.settings(max_examples=100, deadline=None)


def _send_all(state, messages):
  """[(direction, bytes, now)] -> the state and when each is there."""
  arrivals = []
  for message in messages:
    state, arrival = simulation.send(state, *message)
    arrivals.append(arrival)
  return state, arrivals


def _each_second(link, num, num_bytes):
  """The state, and how long messages up take that go a second apart."""
  state, arrivals = _send_all(
    simulation.init(link), [(UP, num_bytes, float(t)) for t in range(num)]
  )
  return state, np.array(arrivals) - np.arange(num)


def test_arrivals_by_hand():
  # 8 Mbps are a byte a microsecond; half a round trip is 30 ms.
  state = simulation.init(Link(up_mbps=8, down_mbps=0.8, rtt_ms=60))
  state, arrivals = _send_all(
    state,
    [
      (UP, 500_000, 1.0),  # leaves from 1 to 1.5 s
      (UP, 100_000, 1.2),  # waits until 1.5, has left at 1.6
      (DOWN, 10_000, 1.2),  # a direction of its own, and a tenth as fast
      (UP, 100_000, 9.0),
    ],
  )
  np.testing.assert_allclose(arrivals, [1.53, 1.63, 1.33, 9.13], rtol=1e-12)
  assert state.up.free_at == pytest.approx(9.1)
  assert (state.up.num_bytes, state.down.num_bytes) == (700_000, 10_000)


@pytest.mark.parametrize(
  ("num_bytes", "now", "arrival"),
  [
    (1_000_000, 1.0, 2.1),  # done before
    (1_900_000, 8.0, 10.0),  # the last of it comes as all goes quiet
    (1_950_000, 8.0, 15.05),  # half its way through the air before, half after
    (3_000_000, 8.0, 16.1),  # two seconds before, one after
    (1_000_000, 10.0, 16.1),
    (7_000_000, 8.0, 22.1),  # it leaves as the second begins
    (0, 20.0, 22.1),
  ],
)
def test_outage(num_bytes, now, arrival):
  link = Link(up_mbps=8, rtt_ms=200, outages=((10.0, 15.0), (20.0, 22.0)))
  _, got = simulation.send(simulation.init(link), UP, num_bytes, now)
  assert got == pytest.approx(arrival, rel=1e-12)


def test_outage_of_a_link_without_any_delay():
  state = simulation.init(Link(outages=((10.0, 15.0),)))
  messages = (UP, 10**9, 9.5), (UP, 0, 10), (DOWN, 7, 14.9)
  state, arrivals = _send_all(state, messages)
  assert arrivals == [9.5, 15.0, 15.0]
  assert (state.up.num_bytes, state.down.num_bytes) == (10**9, 7)
  assert (state.up.num_messages, state.down.num_messages) == (2, 1)
  assert state.up.num_resent == 0


def test_jitter_is_up_to_its_bound_and_differs():
  _, late = _each_second(Link(rtt_ms=10, jitter_ms=40), 200, 1)
  assert min(late) >= 0.005 and max(late) <= 0.045 + 1e-9
  assert np.mean(late) == pytest.approx(0.025, abs=0.003)
  assert len(set(np.round(late, 6))) > 190


def test_what_loss_costs():
  """Of a packet 1 / (1 - p) go out; a single one waits p / (1 - p) rounds."""
  link = Link(up_mbps=8, down_mbps=8, rtt_ms=100, loss=0.2)
  state, late = _each_second(link, 2000, 1000)
  share = state.up.num_resent / state.up.num_bytes
  assert share == pytest.approx(0.25, rel=0.1)
  # 1.25 times a millisecond to send, 50 to go, 0.25 times 100 to hear of it.
  assert np.mean(late) == pytest.approx(0.00125 + 0.05 + 0.025, rel=0.1)
  state, arrival = simulation.send(state, DOWN, 1400 * 10_000, 0.0)
  resent = state.down.num_resent
  assert resent % 1400 == 0
  assert resent == pytest.approx(0.25 * 1400 * 10_000, rel=0.05)
  sent = (1400 * 10_000 + resent) / 1e6
  assert state.down.free_at == pytest.approx(sent)
  rounds = (arrival - sent - 0.05) / 0.1
  assert rounds == pytest.approx(round(rounds)) and 4 <= rounds <= 12


_messages = st.lists(
  st.tuples(
    st.sampled_from([UP, DOWN]), st.integers(0, 300_000), st.floats(0, 30)
  ),
  max_size=30,
)
_mbps = st.none() | st.floats(0.1, 100)
_links = st.builds(
  Link,
  up_mbps=_mbps,
  down_mbps=_mbps,
  rtt_ms=st.floats(0, 500),
  jitter_ms=st.floats(0, 500),
  loss=st.floats(0, 0.5),
  outages=st.sampled_from([(), ((1.0, 5.0),), ((0.0, 2.5), (2.5, 20.0))]),
)


@_quick
@hypothesis.given(_links, _messages, st.integers(0, 99))
def test_nothing_overtakes_or_comes_before_it_is_sent(link, messages, seed):
  state, arrivals = _send_all(simulation.init(link, seed), messages)
  for arrival, (_, _, now) in zip(arrivals, messages, strict=True):
    assert arrival >= now
    assert not any(s < arrival < e for s, e in link.outages)
  for direction in (UP, DOWN):
    mine = [i for i, m in enumerate(messages) if m[0] == direction]
    in_order = [arrivals[i] for i in mine]
    assert in_order == sorted(in_order)
    num_bytes = sum(messages[i][1] for i in mine)
    assert getattr(state, direction).num_bytes == num_bytes


@_quick
@hypothesis.given(_links, _messages, st.integers(0, 30), st.integers(0, 99))
def test_taken_up_again_it_goes_on_as_it_would_have(link, messages, cut, seed):
  start = simulation.init(link, seed)
  whole = _send_all(start, messages)
  assert _send_all(start, messages) == whole
  state, before = _send_all(start, messages[:cut])
  content = simulation.dump(Timeline(state))
  text = json.dumps(content, allow_nan=False)
  again = simulation.load(json.loads(text)).network
  assert again == state
  state, after = _send_all(again, messages[cut:])
  assert (state, before + after) == whole


def test_another_seed_is_another_network():
  link = Link(rtt_ms=10, jitter_ms=10)
  arrivals = {
    simulation.send(simulation.init(link, seed), way, 1, 0.0)[1]
    for seed in (0, 1, 0)
    for way in (UP, DOWN)
  }
  assert len(arrivals) == 4


def test_what_cannot_be_sent():
  state = simulation.init(Link())
  for num_bytes, now in ((-1, 0.0), (1, np.nan), (1, np.inf)):
    with pytest.raises(ValueError):
      simulation.send(state, UP, num_bytes, now)

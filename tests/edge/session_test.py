"""Whatever the network does, both ends agree in the end, or a line says why."""

import tracemalloc
from unittest import mock

import msgspec
import numpy as np
import pytest

from ojd.edge import store
from ojd.edge.registry import Capacity
from ojd.edge.session import Rules
from ojd.network import messages, weights
from ojd.network.messages import Ack, Frames, Heartbeat, Resync, Schedule
from tests.reference import edge_world, hostile
from tests.reference.edge_world import World, bits, first, is_update


def _begun(**options):
  """A device that was trained for a while."""
  world = World(**options)
  client = world.joined()
  world.play(client, 30)
  world.assert_agreed(client)
  assert client.device.counts.num_updates > 2
  return world, client


def _session(client):
  return client.world.session_of(client)


def test_device_follows_and_nothing_whole_is_sent():
  _, client = _begun()
  session, counts = _session(client), client.device.counts
  assert counts.num_whole == counts.num_resyncs == 0
  assert counts.num_updates == session.counts.num_rounds
  assert session.held.version == counts.num_updates
  versions = [served.held.version for served in client.staged]
  assert versions == list(range(1, counts.num_updates + 1))
  assert client.errors == [] and bits(client.device.held) != bits(first())
  assert client.device.held.layout.trainable == edge_world.TRAINABLE
  # Heartbeats come back and tell the way.
  client.send(client.device.beat(client.world.now))
  client.world.now += 0.25
  client.world.settle()
  assert counts.rtt_ms == pytest.approx(250.0)


def _fault_of(kind, rng):
  """What becomes of a message."""
  kept = []

  def fault(client, data, is_up):
    if rng.random() >= 0.2:
      late, kept[:] = list(kept), []
      # Those that were held back come after this one.
      return [data, *(d for c, d, up in late if (c, up) == (client, is_up))]
    if kind == "reordering":
      kept.append((client, data, is_up))
    broken = bytearray(data)
    broken[rng.integers(len(data))] ^= int(rng.integers(1, 256))
    found = {"duplication": [data, data], "corruption": [bytes(broken)]}
    return found.get(kind, [])

  return fault


@pytest.mark.parametrize(
  "kind", ["loss", "duplication", "reordering", "corruption"]
)
@pytest.mark.parametrize("seed", range(6))
def test_faults_of_the_network(kind, seed):
  world = World(seed=seed)
  clients = [world.client() for _ in range(3)]

  def step(seconds, **options):
    for client in clients:
      if client.peer is None:
        client.connect()
      client.play()
    world.now += seconds
    world.registry.tick()
    world.settle(**options)

  fault = _fault_of(kind, np.random.default_rng(seed))
  for _ in range(120):
    step(3.0, fault=fault)
    for client in clients:
      held = bits(client.device.held)
      assert held in world.history or held == bits(first())
  for _ in range(5):
    step(61.0)
  for client in clients:
    assert not client.is_refused
    world.assert_agreed(client)
    assert client.device.counts.num_updates > 2
    assert all("\n" not in line for line in client.errors)
  assert len({_session(client).number for client in clients}) == 3


@pytest.mark.parametrize("num_bytes", [0, 20, 150, -1, None])
def test_cut_in_the_middle_of_an_update_or_before_its_ack(num_bytes):
  world, client = _begun()
  before = client.device.held

  def cut(client, data, is_up):
    if num_bytes is None:
      if is_up and isinstance(messages.decode(data), Ack):
        client.cut()
        return []
      return [data]
    if is_up or not is_update(data):
      return [data]
    # The device sees less than all of it, if anything.
    world.registry.receive(client.peer, messages.encode(Heartbeat(1.0)))
    if part := data[: min(num_bytes, len(data) - 1)]:
      client.take(part)
    client.cut()
    return []

  while client.peer is not None:
    world.play(client, fault=cut)
  assert (client.device.held is before) == (num_bytes is not None)
  client.again()
  # The server still had that update: no weights were sent whole.
  assert client.device.counts.num_whole == 0
  assert _session(client).counts.num_resent == (num_bytes is not None)


def test_another_connection_needs_no_weights_unless_they_are_too_old():
  world, client = _begun()
  seen, number = [], client.device.session
  client.cut()
  client.connect()
  world.settle(lambda client, data, is_up: seen.append(data) or [data])
  world.assert_agreed(client)
  assert client.device.session == number and len(seen) == 2
  client.device.held = first(trainable=edge_world.TRAINABLE)
  client.again()
  assert client.device.counts.num_whole == 1
  # Asked for thrice, they are sent once.
  num = _session(client).counts.num_whole
  for _ in range(3):
    client.send(Resync(client.device.held.version))
  world.settle()
  world.assert_agreed(client)
  assert _session(client).counts.num_whole == num + 1


@pytest.mark.parametrize("has_store", [False, True])
def test_restarted_server_goes_on_from_what_the_device_holds(
  has_store, tmp_path
):
  keeper = store.Store(tmp_path, max_files=4) if has_store else None
  world, client = _begun(store=keeper)
  before, number = client.device.held, client.device.session
  client.cut()
  world.registry = world.new_registry()
  for _ in range(5):  # nobody is there
    client.play()
  assert client.device.held is before
  client.again()
  # Nothing was sent down: the device's weights are those that count.
  assert client.device.held.params is before.params
  assert (client.device.session == number) == has_store
  world.play(client, 30)
  world.assert_agreed(client)
  assert client.device.held.version > before.version
  assert client.device.counts.num_whole == 0


def test_server_that_wrote_less_than_it_sent(tmp_path, monkeypatch):
  """Its disk was full for a while, and then it was restarted."""
  keeper = store.Store(tmp_path, max_files=4)
  world, client = _begun(store=keeper)
  version = client.device.held.version
  with monkeypatch.context() as full:
    no_room = mock.Mock(side_effect=OSError(28, "no room"))
    full.setattr(keeper, "save", no_room)
    while client.device.held.version < version + 3:
      world.play(client)
  assert any("cannot be kept: no room" in note for note in world.notes)
  before, world.registry = client.device.held, world.new_registry()
  client.again()
  assert client.device.held.params is before.params


def test_server_that_wrote_more_than_it_could_send(tmp_path):
  world, client = _begun(store=store.Store(tmp_path, max_files=4))
  is_lost = lambda data, is_up: not is_up and is_update(data)
  lose = lambda client, data, is_up: [data] * (not is_lost(data, is_up))
  while not _session(client).is_in_flight:
    world.play(client, fault=lose)
  world.registry = world.new_registry()
  client.again()
  assert client.device.counts.num_whole == 1


_TERMS = edge_world.TERMS


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"layout": bytes(16)}, "another network"),
    ({"terms": _TERMS._replace(classes="person;auto=car")}, "other classes"),
    ({"terms": _TERMS._replace(classes="x" * 9000)}, "other classes"),
    ({"terms": _TERMS._replace(height=7)}, "too small"),
  ],
)
def test_other_terms_end_in_a_line_at_both_ends(change, words):
  world, client = _begun()
  check = lambda terms: "too small" if terms.height == 7 else ""
  registry = world.registry
  registry.offer = registry.offer._replace(check_terms=check)
  other = world.client()
  other.connect()
  hello = messages.decode(other.up.pop())
  other.send(msgspec.structs.replace(hello, **change))
  world.settle()
  assert other.is_refused and other.peer is None
  (line,) = other.errors
  assert words in line and "\n" not in line
  assert any(words in note for note in world.notes)
  world.play(client, 9)
  world.assert_agreed(client)


def test_device_of_the_first_protocol_is_told_in_its_own_words():
  world, client = _begun()
  peer = edge_world.Peer()
  world.registry.receive(peer, hostile.FIRST_HELLO)
  (told,) = peer.down
  assert peer.is_closed
  words = "protocol 2 is spoken here and 1 there"
  # As version 1 has it: a head of ten bytes, "finally", the text, a checksum.
  assert told[10:11] == b"\1" and told[11:-4].decode().startswith(words)
  assert words in world.notes[-1] and "\n" not in world.notes[-1]
  world.play(client, 9)
  world.assert_agreed(client)


_WELCOME = messages.Welcome(bytes(16), 0, Schedule(8), False, b"\x60")


@pytest.mark.parametrize(
  ("message", "words"),
  [
    (Ack(10**6), "an Ack of version 1000000"),
    (Resync(10**6), "version 1000000 of weights"),
    (weights.whole(first(version=1), bytes(16)), "no Update is due"),
    (_WELCOME, "no Welcome"),
    (Frames("jpeg", 2, 3, (0.0,), (b"x",)), "raw of 2x3 are agreed upon"),
    (Frames("raw", 3, 2, (0.0,), (bytes(18),)), "raw of 2x3 are agreed upon"),
  ],
)
def test_what_a_device_does_not_say(message, words):
  world, client = _begun()
  client.send(message)
  world.settle()
  assert client.peer is None and words in client.errors[0]
  client.again()


def _send_keys(client, times):
  for t in times:
    client.world.registry.receive(
      client.peer, messages.encode(edge_world.key_frame(t))
    )


def _waiting(world):
  """All that wait."""
  return list(iter(lambda: world.registry.take(0), None))


def test_queue_of_key_frames_is_bounded():
  world, client = _begun(rules=Rules(max_queue=3))
  _send_keys(client, range(100, 110))
  times = [frames.times for _, frames in _waiting(world)]
  assert times == [(10.7,), (10.8,), (10.9,)]
  assert _session(client).counts.num_dropped == 7


def test_too_many_key_frames_are_refused():
  world, client = _begun(rules=Rules(max_rate=2.0, max_queue=1000))
  world.now += 1000.0
  taken = []
  for t in (1000, 1100, 1200):
    _send_keys(client, range(t, t + 100))
    taken.append(len(_waiting(world)))
    world.now += 1.0
  assert taken == [20, 2, 2]
  assert _session(client).counts.num_refused == 300 - 24


def test_no_device_starves():
  world = World(rules=Rules(max_queue=50, max_rate=1000.0))
  clients = [world.joined() for _ in range(3)]
  for client, num in zip(clients, (40, 2, 2), strict=True):
    _send_keys(client, range(num))
  order = [world.registry.take(0)[0].number for _ in range(6)]
  assert [order.count(x.device.session) for x in clients] == [2, 2, 2]


def test_room_is_bounded_and_those_who_left_give_way():
  world = World(capacity=Capacity(max_sessions=2, forget_seconds=60.0))
  clients = [world.joined() for _ in range(3)]
  assert clients[2].errors == ["the server is full: 2 devices"]
  assert not clients[2].is_refused  # another time there may be room
  clients[0].cut()
  clients[2].again()
  assert world.session_of(clients[0]) is None
  clients[2].cut()
  world.now += 61.0
  world.registry.tick()
  assert len(world.registry.sessions()) == 1


def test_values_that_are_not_finite_stay_at_the_server():
  world, client = _begun()
  session = _session(client)
  before = bits(client.device.held)
  broken = {k: v.copy() for k, v in session.held.params.items()}
  broken["c/bias"][0] = np.nan
  world.registry.learned(session, broken, Schedule(stride=5))
  world.settle()
  assert bits(client.device.held) == before
  world.assert_agreed(client)
  assert (
    client.device.plan.schedule.stride == 5 and session.counts.num_failed == 1
  )


def _anything(session):
  """The bytes of a message of each kind, for a session."""
  whole = weights.whole(first(version=9), session)
  hello = messages.Hello(bytes(16), _TERMS, bytes(16), session, 2)
  every = (
    *(Ack(1), Ack(2), Resync(1), Heartbeat(0.5), messages.Bye()),
    *(
      messages.Error("why"),
      hello,
      msgspec.structs.replace(_WELCOME, session=session),
    ),
    *(edge_world.key_frame(t) for t in (0, 5)),
    *(whole, msgspec.structs.replace(whole, base_version=0, new_version=1)),
  )
  return [messages.encode(message) for message in every]


def _enemy(valid, seed):
  """10,000 messages with their numbers; the last of them take little memory."""
  rng = np.random.default_rng(seed)
  for i, data in enumerate(hostile.messages(valid, 10_000, rng)):
    if i == 8_000:  # it slows down what it watches
      tracemalloc.start()
    yield i, data
  assert tracemalloc.get_traced_memory()[1] < 1 << 23
  tracemalloc.stop()


def test_10000_messages_of_an_enemy_to_the_server():
  world = World(capacity=Capacity(max_bytes=10_000, max_sessions=4))
  good, other = world.joined(), world.client()
  hello = messages.encode(other.device.connected(world.now))
  world.clients.remove(other)
  peer = None
  for i, data in _enemy(_anything(good.device.session), 0):
    if peer is None or peer.is_closed:
      if peer is not None:
        world.registry.left(peer)
      peer = edge_world.Peer()
      if i % 3:
        world.registry.receive(peer, hello)
    world.registry.receive(peer, data)
    peer.down.clear()
    world.notes.clear()
    if i % 100 == 0:
      world.now += 1.0
      world.train()
      world.history.clear()
  if good.peer is None or good.peer.is_closed:
    good.again()
  for _ in range(20):
    good.play()
    world.now += 1.0
    world.settle()
  world.assert_agreed(good)
  assert len(world.registry.sessions()) <= 4


def test_10000_messages_of_an_enemy_to_the_device():
  world, client = _begun()
  device = client.device
  num_ended = 0
  for i, data in _enemy(_anything(device.session), 1):
    before = device.held
    if client.peer is None:
      client.connect()
      if i % 3:
        world.settle()
    if client.peer is not None:
      client.take(data)
    num_ended += client.peer is None
    client.up.clear()
    client.errors, client.staged = client.errors[-1:], []
    world.notes.clear()
    assert all("\n" not in line for line in client.errors)
    if device.held is not before:
      assert all(np.isfinite(a).all() for a in device.held.params.values())
  assert num_ended > 3000
  client.again()

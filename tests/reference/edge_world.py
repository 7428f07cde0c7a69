"""A server and its devices without sockets, jax or time of their own.

What is sent lies in `Line`s until `World.settle` carries it over, through
whatever faults the test thinks of.
"""

import collections

import numpy as np

from ojd.edge.device import Device, Hangup
from ojd.edge.registry import Offer, Registry
from ojd.network import messages
from ojd.network.messages import Frames, Schedule, Terms, Update, WireError
from ojd.network.weights import Weights, layout_of

SHAPES = {"a/kernel": (3, 4), "b/kernel": (5, 6), "c/bias": (7,)}
TRAINABLE = ("b/kernel", "c/bias")
TERMS = Terms(2, 3, 10.0, "raw", "person")
CHUNK = bytes(18)


def first(version=0, trainable=TRAINABLE):
  """The weights that everybody begins with."""
  rng = np.random.default_rng(0)
  params = {
    name: rng.normal(size=shape).astype(np.float32)
    for name, shape in SHAPES.items()
  }
  return Weights(params, layout_of(params, trainable), version)


def bits(held):
  return {name: array.tobytes() for name, array in held.params.items()}


def key_frame(t, fps=TERMS.fps):
  return Frames("raw", 2, 3, (t / fps,), (CHUNK,))


class Peer:
  """A connection as the registry sees it; what it puts waits in `down`."""

  def __init__(self):
    self.down = collections.deque()
    self.is_closed = False

  @property
  def is_idle(self):
    return not self.down

  def put(self, data):
    if not self.is_closed:
      self.down.append(data)

  def close(self):
    self.is_closed = True


def _pass_on(client, data, is_up):
  return [data]


class Client:
  """A device, its connection, and all that was ever sent over it."""

  def __init__(self, world):
    self.world, self.peer, self.t = world, None, 0
    self.up, self.errors, self.staged = collections.deque(), [], []
    self.is_refused = False
    stage = lambda served: self.staged.append(served)
    self.device = Device(first(trainable=None), TERMS, stage)

  def connect(self):
    self.peer = Peer()
    self.up.clear()
    self.send(self.device.connected(self.world.now))

  def again(self):
    """Another connection, on which both ends come to agree."""
    self.cut()
    self.connect()
    self.world.settle()
    self.world.assert_agreed(self)

  def cut(self):
    """The connection is gone for both."""
    if self.peer is not None:
      self.world.registry.left(self.peer)
      self.peer = None
    self.up.clear()
    self.device.lost()

  def send(self, message):
    self.up.append(messages.encode(message))

  def play(self):
    """A frame of the stream; it goes up if it is wanted."""
    now, t = self.world.now, self.t
    self.t += 1
    if self.peer is None:
      return
    try:
      self.device.check(now)
    except Hangup:
      self.cut()
      return
    if self.device.plan.wants(t, t / 10, now, 5.0):
      self.device.sent(t, now)
      self.send(key_frame(t))

  def take(self, data):
    """A message of the server arrives."""
    try:
      replies = self.device.handle(messages.decode(data), self.world.now)
    except (Hangup, WireError) as error:
      self.errors.append(str(error))
      self.is_refused |= isinstance(error, Hangup) and error.is_final
      self.cut()
      return
    for reply in replies:
      self.send(reply)


class World:
  """A registry, its trainer and any number of clients."""

  def __init__(self, seed=0, **options):
    self.now, self.notes, self.clients = 100.0, [], []
    self.history = []  # of all that was ever learned
    self.options, self.rng = options, np.random.default_rng(seed)
    self.registry = self.new_registry()

  def new_registry(self):
    """A server, which knows nothing."""
    offer = Offer(first(), Schedule(stride=8), "person")
    told = {"note_fn": self.notes.append, "clock": lambda: self.now}
    return Registry(offer, **told, **self.options)

  def client(self):
    self.clients.append(Client(self))
    return self.clients[-1]

  def joined(self):
    """A client that has said hello."""
    client = self.client()
    client.connect()
    self.settle()
    return client

  def train(self):
    """Training rounds for all that waits; some move all, some a little."""
    while (taken := self.registry.take(0)) is not None:
      session, _ = taken
      params = dict(session.training_state or session.held.params)
      share = self.rng.choice([0.0, 0.1, 1.0])
      for name in TRAINABLE:
        move = self.rng.random(params[name].shape) < share
        params[name] = (params[name] + move).astype(np.float32)
      session.training_state = params
      stride = int(self.rng.integers(1, 9))
      self.registry.learned(session, params, Schedule(stride=stride))
      self.history.append(bits(session.held._replace(params=params)))

  def play(self, client, num_frames=1, fault=_pass_on):
    """Frames of a client's stream, a tenth of a second apart."""
    for _ in range(num_frames):
      client.play()
      self.now += 0.1
      self.settle(fault)

  def settle(self, fault=_pass_on):
    """Carries over until nobody has anything to say; faults make lists."""
    for _ in range(1000):
      if not any([self.carry(client, fault) for client in self.clients]):
        return
      self.train()
    raise AssertionError("they never stop talking")

  def carry(self, client, fault=_pass_on):
    """What waits on one connection now; returns whether there was any."""
    peer, moved = client.peer, False
    if peer is None:
      return False
    while client.up and client.peer is peer:
      moved = True
      for data in fault(client, client.up.popleft(), True):
        self.registry.receive(peer, data)
    while peer.down and client.peer is peer:
      moved = True
      for data in fault(client, peer.down.popleft(), False):
        if client.peer is peer:
          client.take(data)
    if client.peer is peer and peer.is_closed and not peer.down:
      client.cut()
    return moved

  def session_of(self, client):
    """The server's side of a client; None where it has none."""
    sessions = {s.number: s for s, _ in self.registry.sessions()}
    return sessions.get(client.device.session)

  def assert_agreed(self, client):
    """Both ends hold the same bits, and call them by the same version."""
    session = self.session_of(client)
    assert session is not None and not session.is_in_flight
    assert session.held.version == client.device.held.version
    assert bits(session.held) == bits(client.device.held)


def is_update(data):
  return isinstance(messages.decode(data), Update)

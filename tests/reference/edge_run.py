"""A small server and device over loopback, in the process of the test."""

import contextlib
import dataclasses
import pathlib

import numpy as np

from ojd.edge import access
from ojd.edge import player as player_lib
from ojd.edge import server as server_lib
from ojd.edge.access import Timing
from ojd.edge.player import Pace
from ojd.edge.registry import Capacity
from ojd.edge.session import Rules
from ojd.run.config import RunConfig
from ojd.types import Instances

# Signs of life often, and patience enough for a machine that is busy: an end
# that is cut short loses the message that says why.
PATIENT = Timing(heartbeat=0.2, timeout=10.0, opening=2.0, closing=5.0)
QUICK = PATIENT._replace(timeout=1.0, closing=0.2)  # to notice who is silent
CONFIG = RunConfig(
  stream="synthetic:sports?num_frames=60",
  teacher="tests.reference.edge_run:make_teacher",
  system="jit",
  init="random",
  height=32,
  width=40,
  classes="person",
  delta_min=4,
  delta_max=16,
  u_max=2,
  seed=2,
)


def of_system(system: str) -> RunConfig:
  """The same for a system that has none of the constants."""
  none = dict.fromkeys(("delta_min", "delta_max", "u_max"))
  return dataclasses.replace(CONFIG, system=system, **none)


class Bright:
  """Takes for a person what is brighter than most."""

  class_names = ("background", "person")

  def __call__(self, frame) -> np.ndarray | Instances:
    grey = frame.mean(-1)
    return (grey > grey.mean() + 20).astype(np.uint8)


def make_teacher():
  return Bright()


class Place:
  """A server that listens on a free port of loopback."""

  def __init__(self, config=CONFIG, who=None, store=None, timing=PATIENT):
    self.notes, address = [], "127.0.0.1:0"
    self.running = server_lib.serve(
      config,
      address,
      who or access.server_access(address, "", "", ""),
      rules=Rules(max_rate=1000.0),
      capacity=Capacity(max_bytes=1 << 20),
      timing=timing,
      store=store,
      note_fn=self.notes.append,
    )
    self.registry, self.server, self.trainer = self.running
    self.url = self.server.url
    self.port = int(self.url.rpartition(":")[2])

  def close(self):
    self.running.close(20)

  def session(self):
    ((session, _),) = self.registry.sessions()
    return session


def place(**options):
  return contextlib.closing(Place(**options))


def player(path: pathlib.Path, url: str, **options):
  """A device for a server; `dial` and other settings are options."""
  flags = options.pop("flags", {})
  config = dataclasses.replace(CONFIG, **flags, workdir=str(path))
  notes = options.pop("notes", [])
  should_stop = options.pop("should_stop", lambda: False)
  dial = options.pop("dial", None) or access.client_dial(url, "", "")
  defaults = {"codec": "raw", "pace": Pace(wait_after=1), "timing": PATIENT}
  settings = player_lib.Settings(dial, **(defaults | options))
  return player_lib.make_player(
    config, settings, note_fn=notes.append, should_stop=should_stop
  )

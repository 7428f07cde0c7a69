"""Serves the calls of many lanes with few programs, in a thread of its own.

A lane calls from its own thread, one call at a time, and waits. Calls of a kind
that wait together are served together, as many as there are slots; one that
waits alone is served alone, at once.
"""

import collections
import threading
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ojd.distill import State, System
from ojd.fleet import programs as programs_lib
from ojd.fleet.programs import AXIS, Shape
from ojd.run import compilation
from ojd.types import Frame, Labels, StepInfo

_PREDICT, _LEARN, _WRITE, _READ = "predict", "learn", "write", "read"


class _Call(NamedTuple):
  kind: str
  lane: int
  inputs: tuple[Any, ...]
  answer: Future


class _Served(NamedTuple):
  """Calls that the devices are at."""

  calls: dict[int, _Call]  # by slot
  outputs: Any  # arrays, slots first


class Engine:
  """The lanes of one system over a mesh."""

  def __init__(
    self, system: System, shape: Shape, state: State, height: int, width: int
  ):
    """Compiles, and begins to serve.

    Args:
      system: of all lanes.
      shape: of the lanes.
      state: of one lane, as every lane has it until it is written.
      height: of the frames.
      width: likewise.
    """
    self.num_lanes = shape.num_lanes * shape.mesh.size
    self._shape, self._frame_size = shape, (height, width)
    self._programs = programs_lib.compile_programs(
      system, shape, state, height, width
    )
    compilation.return_memory()
    self._states = programs_lib.spread(shape, state)
    self._own = NamedSharding(shape.mesh, P(AXIS))
    self._everywhere = NamedSharding(shape.mesh, P())
    self._calls: collections.deque[_Call] = collections.deque()
    self._is_wanted = threading.Condition()
    self._is_closed = False
    self._broken: Exception | None = None
    self.num_served = self.num_turns = 0  # calls, and the programs run for them
    self._thread = threading.Thread(
      target=self._serve, name="engine", daemon=True
    )
    self._thread.start()

  def predict(self, lane: int, frame: Frame) -> tuple[np.ndarray, int]:
    """Steps a lane; the classes of the frame, and the next key frame."""
    return self._call(_PREDICT, lane, frame)

  def learn(
    self, lane: int, frame: Frame, labels: Labels
  ) -> tuple[np.ndarray, int, StepInfo]:
    """Teaches a lane: the same, and what was done."""
    labels = Labels(*map(np.asarray, labels))
    return self._call(_LEARN, lane, frame, labels)

  def write(self, lane: int, state: State) -> None:
    """Gives a lane a state."""
    self._call(_WRITE, lane, state)

  def read(self, lane: int) -> State:
    """The state of a lane, which it keeps."""
    return self._call(_READ, lane)

  def close(self) -> None:
    """Ends the thread; calls that wait fail."""
    with self._is_wanted:
      self._is_closed = True
      self._is_wanted.notify()
    self._thread.join()

  def _call(self, kind, lane, *inputs):
    call = _Call(kind, lane, inputs, Future())
    with self._is_wanted:
      if self._broken or self._is_closed:
        raise RuntimeError(f"the students' program ended: {self._broken or ''}")
      self._calls.append(call)
      self._is_wanted.notify()
    return call.answer.result()

  def _serve(self):
    """Runs a program while the answers of the one before are handed out."""
    served = None
    try:
      while calls := self._take(wait=served is None) or served:
        begun = None if calls is served else self._begin(calls)
        if served is not None:
          _hand_out(served)
        served = begun
      self._fail(RuntimeError("it was closed"))
    except Exception as error:
      if served is not None:
        self._fail(error, served.calls.values())
      self._fail(error)

  def _fail(self, error, calls=()):
    """Nobody waits for ever."""
    with self._is_wanted:
      self._broken, left = error, [*calls, *self._calls]
      self._calls.clear()
    for call in left:
      if not call.answer.done():
        call.answer.set_exception(error)

  def _take(self, wait):
    """Calls that can be served at once, by slot; none where there are none."""
    with self._is_wanted:
      while wait and not self._calls and not self._is_closed:
        self._is_wanted.wait()
      if not self._calls or self._is_closed:
        return {}
      kind = self._calls[0].kind
      if kind in (_WRITE, _READ):
        return {0: self._calls.popleft()}
      slots = self._free_slots(kind)
      taken, left = {}, collections.deque()
      for call in self._calls:
        device = call.lane // self._shape.num_lanes
        if call.kind == kind and slots[device]:
          taken[slots[device].pop(0)] = call
        else:
          left.append(call)
      self._calls = left
      return taken

  def _free_slots(self, kind):
    """Of every device those that a program of this kind has."""
    shape = self._shape
    is_learning = kind == _LEARN
    num = shape.num_learning if is_learning else shape.num_predicting
    return [list(range(i * num, (i + 1) * num)) for i in range(shape.mesh.size)]

  def _begin(self, calls) -> _Served:
    """Starts a program for some calls of one kind."""
    (kind, *_) = {call.kind for call in calls.values()}
    try:
      begin = {_WRITE: self._write, _READ: self._read}.get(kind)
      if begin is not None:
        (call,) = calls.values()
        return _Served({0: call}, begin(call))
      self.num_served, self.num_turns = (
        self.num_served + len(calls),
        self.num_turns + 1,
      )
      return _Served(calls, self._step(kind, calls))
    except Exception as error:
      self._fail(error, calls.values())
      raise

  def _step(self, kind, calls):
    num_slots = sum(map(len, self._free_slots(kind)))
    places = np.full(num_slots, self._shape.num_lanes, np.int32)
    for slot, call in calls.items():
      places[slot] = call.lane % self._shape.num_lanes
    some = next(iter(calls.values())).inputs
    inputs = [calls[i].inputs if i in calls else some for i in range(num_slots)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *inputs)
    given = jax.device_put((places, *stacked), self._own)
    program = getattr(self._programs, kind)
    self._states, *outputs = program(self._states, *given)
    return outputs

  def _write(self, call):
    device, place = divmod(call.lane, self._shape.num_lanes)
    places = np.full(self._shape.mesh.size, self._shape.num_lanes, np.int32)
    places[device] = place
    (state,) = call.inputs
    self._states = self._programs.write(
      self._states,
      jax.device_put(places, self._own),
      jax.device_put(state, self._everywhere),
    )

  def _read(self, call):
    device, place = divmod(call.lane, self._shape.num_lanes)
    return programs_lib.read_lane(
      self._states, self._shape.devices[device], place
    )


def _hand_out(served: _Served):
  """Waits for what was begun, and answers its calls."""
  (kind, *_) = {call.kind for call in served.calls.values()}
  if kind in (_WRITE, _READ):
    (call,) = served.calls.values()
    return call.answer.set_result(jax.block_until_ready(served.outputs))
  outputs = jax.device_get(served.outputs)
  for slot, call in served.calls.items():
    classes, next_key, *info = jax.tree.map(lambda x, i=slot: x[i], outputs)
    # A copy: the others' classes would be kept as long as these are.
    call.answer.set_result((np.array(classes), int(next_key), *info))

"""Serves the requests of many streams with few programs, in its own thread.

A stream makes one request at a time, from its own thread, and waits. Requests
of a kind that wait together run as one batch; a single one runs at once.
"""

import collections
import threading
from collections.abc import Callable
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


class _Request(NamedTuple):
  kind: str
  slot: int
  inputs: tuple[Any, ...]
  future: Future


class _Batch(NamedTuple):
  """Requests of one kind that run together."""

  kind: str
  requests: dict[int, _Request]  # by row
  outputs: Any  # arrays, rows first; a state for `_READ`


class Engine:
  """The states of many streams of one system, and the programs over them."""

  def __init__(
    self, system: System, shape: Shape, state: State, height: int, width: int
  ):
    """Compiles, and starts to serve.

    Args:
      system: of all streams.
      shape: of the slots.
      state: that every slot has until it is written.
      height: of the frames; so is width.
    """
    self._shape = shape
    self._programs = programs_lib.compile_programs(
      system, shape, state, height, width
    )
    compilation.return_memory()
    self._states = programs_lib.broadcast(shape, state)
    self._by_slot = NamedSharding(shape.mesh, P(AXIS))
    self._replicated = NamedSharding(shape.mesh, P())
    self._waiting: collections.deque[_Request] = collections.deque()
    self._changed = threading.Condition()
    self._is_closed = False
    self._error: Exception | None = None
    self.num_requests = self.num_batches = 0  # of predict and learn
    self._thread = threading.Thread(
      target=self._serve, name="engine", daemon=True
    )
    self._thread.start()

  def predict(self, slot: int, frame: Frame) -> tuple[np.ndarray, int]:
    """Steps a slot; returns the classes of the frame and the next key frame."""
    return self._submit(_PREDICT, slot, frame)

  def learn(
    self, slot: int, frame: Frame, labels: Labels
  ) -> tuple[np.ndarray, int, StepInfo]:
    """Trains a slot's student; returns as `predict`, and the step."""
    return self._submit(_LEARN, slot, frame, Labels(*map(np.asarray, labels)))

  def write(self, slot: int, state: State) -> None:
    """Gives a slot a state."""
    self._submit(_WRITE, slot, state)

  def read(self, slot: int) -> State:
    """A copy of a slot's state."""
    return self._submit(_READ, slot)

  def close(self) -> None:
    """Ends the thread; requests that wait fail."""
    with self._changed:
      self._is_closed = True
      self._changed.notify()
    self._thread.join()

  def _submit(self, kind, slot, *inputs):
    request = _Request(kind, slot, inputs, Future())
    with self._changed:
      if self._error or self._is_closed:
        raise RuntimeError(f"the engine has ended: {self._error or ''}")
      self._waiting.append(request)
      self._changed.notify()
    return request.future.result()

  def _serve(self):
    """Runs a batch while the outputs of the one before are handed out."""
    running = None
    try:
      while requests := self._take(wait=running is None) or running:
        started = None if requests is running else self._start(requests)
        if running is not None:
          _hand_out(running)
        running = started
      self._fail(RuntimeError("it was closed"))
    except Exception as error:
      if running is not None:
        self._fail(error, running.requests.values())
      self._fail(error)

  def _fail(self, error, requests=()):
    """Fails these requests and all that wait, so that no stream hangs."""
    with self._changed:
      self._error, waiting = error, [*requests, *self._waiting]
      self._waiting.clear()
    for request in waiting:
      if not request.future.done():
        request.future.set_exception(error)

  def _take(self, wait) -> dict[int, _Request]:
    """Requests that can run together, by row; none where none wait."""
    with self._changed:
      while wait and not self._waiting and not self._is_closed:
        self._changed.wait()
      if not self._waiting or self._is_closed:
        return {}
      kind = self._waiting[0].kind
      if kind in (_WRITE, _READ):
        return {0: self._waiting.popleft()}
      rows = self._rows_by_device(kind)
      taken, left = {}, collections.deque()
      for request in self._waiting:
        device = request.slot // self._shape.num_slots
        if request.kind == kind and rows[device]:
          taken[rows[device].pop(0)] = request
        else:
          left.append(request)
      self._waiting = left
      return taken

  def _rows_by_device(self, kind) -> list[list[int]]:
    shape = self._shape
    num = shape.learn_rows if kind == _LEARN else shape.predict_rows
    return [list(range(i * num, (i + 1) * num)) for i in range(shape.mesh.size)]

  def _start(self, requests) -> _Batch:
    """Starts a program for requests of one kind, and does not wait for it."""
    first = next(iter(requests.values()))
    try:
      if first.kind == _WRITE:
        outputs = self._write(first)
      elif first.kind == _READ:
        outputs = self._read(first)
      else:
        self.num_requests += len(requests)
        self.num_batches += 1
        outputs = self._step(first.kind, requests)
      return _Batch(first.kind, requests, outputs)
    except Exception as error:
      self._fail(error, requests.values())
      raise

  def _step(self, kind, requests):
    num_rows = sum(map(len, self._rows_by_device(kind)))
    slots = np.full(num_rows, self._shape.num_slots, np.int32)
    for row, request in requests.items():
      slots[row] = request.slot % self._shape.num_slots
    filler = next(iter(requests.values()))
    inputs = [requests.get(row, filler).inputs for row in range(num_rows)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *inputs)
    given = jax.device_put((slots, *stacked), self._by_slot)
    program = getattr(self._programs, kind)
    self._states, *outputs = program(self._states, *given)
    return outputs

  def _write(self, request):
    device, slot = divmod(request.slot, self._shape.num_slots)
    slots = np.full(self._shape.mesh.size, self._shape.num_slots, np.int32)
    slots[device] = slot
    (state,) = request.inputs
    self._states = self._programs.write(
      self._states,
      jax.device_put(slots, self._by_slot),
      jax.device_put(state, self._replicated),
    )

  def _read(self, request):
    device, slot = divmod(request.slot, self._shape.num_slots)
    return programs_lib.read_slot(
      self._states, self._shape.devices[device], slot
    )


def _hand_out(batch: _Batch):
  """Waits for a batch, and answers its requests."""
  if batch.kind in (_WRITE, _READ):
    (request,) = batch.requests.values()
    return request.future.set_result(jax.block_until_ready(batch.outputs))
  outputs = jax.device_get(batch.outputs)
  for row, request in batch.requests.items():
    classes, next_key, *info = jax.tree.map(lambda x, i=row: x[i], outputs)
    # A copy: else the classes of all rows are kept as long as these are.
    request.future.set_result((np.array(classes), int(next_key), *info))


class Slot:
  """The system of one stream, whose state is kept by an engine.

  It has the methods of `ojd.run.executor.Executor`.
  """

  def __init__(
    self,
    engine: Engine,
    slot: int,
    first_state: Callable[[], State],
    next_key: Callable[[State], int],
  ):
    """Names the slot.

    Args:
      engine: that keeps the state.
      slot: its number, which no other stream has.
      first_state: makes the state that the run begins with.
      next_key: of a state.
    """
    self._engine, self._slot = engine, slot
    self._first_state, self._next_key_of = first_state, next_key
    self._next_key = 0

  def begin(self, state: State | None = None) -> None:
    """Continues from a state; None: from a new one."""
    self.replace(self._first_state() if state is None else state)

  @property
  def state(self) -> State:
    """A copy of the engine's."""
    return self._engine.read(self._slot)

  def replace(self, state: State) -> None:
    """Replaces the state."""
    self._engine.write(self._slot, state)
    self._next_key = self._next_key_of(state)

  def next_key(self) -> int:
    """The next frame that the teacher must see."""
    return self._next_key

  def learn(
    self, frame: np.ndarray, labels: Labels
  ) -> tuple[np.ndarray, StepInfo]:
    """Learns from a key frame; its answer, and the step in plain numbers."""
    classes, self._next_key, info = self._engine.learn(
      self._slot, frame, labels
    )
    return classes, jax.tree.map(lambda x: np.asarray(x).item(), info)

  def predict(self, frame: np.ndarray) -> np.ndarray:
    """The answer to a frame."""
    classes, self._next_key = self._engine.predict(self._slot, frame)
    return classes

  def predict_readonly(self, frame: np.ndarray) -> np.ndarray:
    """The answer to a frame; the state stays as it is."""
    kept = self._engine.read(self._slot)
    classes, _ = self._engine.predict(self._slot, frame)
    self._engine.write(self._slot, kept)
    return classes

  def warm_up_readonly(self) -> None:
    """Nothing to do: the engine compiles all its programs at its start."""

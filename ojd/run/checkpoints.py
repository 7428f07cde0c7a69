"""Checkpoints of a run: all that changes in it, kept by Orbax.

T/state     the arrays as the first T frames left them, in Orbax's own format
T/meta      what the caller adds, the arrays' names and shapes, their digest
T/digest    of the files of both: where it fits, the checkpoint is whole

A save keeps the caller for the copy to the host only; a thread does the rest,
the import of Orbax included.
"""

import concurrent.futures
import functools
import hashlib
import json
import logging
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ojd.distill import State
from ojd.errors import UserError
from ojd.run import state_arrays

FORMAT = 3  # of T/meta
_STATE, _META, _DIGEST = "state", "meta", "digest"


class Restored(NamedTuple):
  """What a checkpoint holds."""

  t: int  # frames gone through
  state: State
  meta: dict[str, Any]


class CheckpointError(RuntimeError):
  """A checkpoint could not be written, or is damaged; told in one line."""


class Checkpoints:
  """The checkpoints in a folder, to which one process at a time may add.

  Nothing is made before the first save, and restoring changes nothing. Without
  `close` the last save may be lost.
  """

  def __init__(self, folder: pathlib.Path, keep_every: int):
    """Names a folder that need not exist yet.

    Args:
      folder: for checkpoints only.
      keep_every: frames. Beside the newest two, the first checkpoint is kept
        and from there on one in so many frames; 0 keeps the newest two only.
    """
    # Orbax takes no relative path.
    self.folder, self._keep_every = pathlib.Path(folder).absolute(), keep_every
    self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
    self._writing: concurrent.futures.Future | None = None
    self._known: dict[str, Any] = {}  # T/meta of one that is surely whole

  def save(
    self,
    t: int,
    state: State,
    meta: dict[str, Any],
    before: Callable[[], None] = lambda: None,
  ) -> None:
    """Copies the state, and writes it while the caller goes on.

    Waits for the save before. Checkpoints of t and later are replaced: who is
    here again went back, and may take another course.

    Args:
      t: frames gone through.
      state: of any system; its buffers are the caller's again on return.
      meta: what json takes.
      before: called in the thread, before anything is written.

    Raises:
      CheckpointError: the save before failed, and this one is not begun.
    """
    self.wait()
    content = {"format": FORMAT, "t": int(t)}
    content["leaves"] = state_arrays.specs(state)
    content["meta"] = json.loads(json.dumps(meta))  # as it is now
    host = state_arrays.to_host(state)
    self._writing = self._thread.submit(
      _write,
      *(self.folder, host, content, self._keep_every, self._known, before),
    )

  def wait(self) -> None:
    """Waits until all is written; raises CheckpointError if it was not."""
    self._settle()
    writing, self._writing = self._writing, None
    if writing is not None:
      self._known = writing.result()

  def _settle(self):
    if self._writing is not None:
      concurrent.futures.wait([self._writing])

  def close(self) -> None:
    """Waits as `wait` does and ends the thread; again does nothing."""
    try:
      self.wait()
    finally:
      self._thread.shutdown()

  def steps(self) -> list[int]:
    """The t of every checkpoint, ascending; waits for one being written."""
    self._settle()
    return _steps(self.folder)

  def restore(self, t: int, abstract_state: State) -> Restored:
    """Reads the checkpoint of frame t, bit for bit.

    Args:
      t: one of `steps()`.
      abstract_state: the shapes and types, of `jax.eval_shape` for instance.

    Returns:
      The state as arrays on the default device, and what was saved with it.

    Raises:
      UserError: there is none, or it is of another state or format.
      CheckpointError: it is damaged.
    """
    self.wait()
    if t not in self.steps():
      known = ", ".join(map(str, self.steps())) or "none"
      raise UserError(f"{self.folder}: no checkpoint {t}; there is {known}")
    restored, self._known = _read(self.folder / str(t), abstract_state)
    return restored

  def restore_latest(
    self, abstract_state: State, at_most: int | None = None
  ) -> tuple[Restored | None, list[str]]:
    """Reads the newest checkpoint that is whole.

    Args:
      abstract_state: as for `restore`.
      at_most: those of a greater t are passed over.

    Returns:
      The checkpoint, None where there is none, and a line for each newer one
      that is damaged.
    """
    self.wait()
    problems = []
    for t in reversed(self.steps()):
      if at_most is None or t <= at_most:
        try:
          return self.restore(t, abstract_state), problems
        except CheckpointError as error:
          problems.append(str(error))
    return None, problems


def _steps(folder):
  """Orbax gives a checkpoint its bare number once all of it is there."""
  if not folder.is_dir():
    return []
  names = [path.name for path in folder.iterdir() if path.is_dir()]
  return sorted(int(x) for x in names if x.isdecimal() and x == str(int(x)))


def _write(folder, host, content, keep_every, known, before):
  """Writes one checkpoint and drops what is not to be kept.

  Args:
    folder: of all checkpoints.
    host: of `state_arrays.to_host`; nobody else's.
    content: T/meta but for the digest, which is added.
    keep_every: of `Checkpoints`.
    known: T/meta of a checkpoint that need not be written again.
    before: called first.

  Returns:
    T/meta.
  """
  ocp = _orbax()
  path = folder / str(content["t"])
  unfinished = ocp.utils.TMP_DIR_SUFFIX + "*"

  def sign():
    for part in folder.glob(path.name + unfinished):
      (part / _DIGEST).write_text(_digest_of_files(part))

  try:
    before()
    content["digest"] = state_arrays.marks(state_arrays.by_name(host)).digest
    if content == known and path.exists():
      return known
    _sweep(folder, "*" + unfinished)  # of processes that were killed
    for step in _steps(folder):
      if step >= content["t"]:
        shutil.rmtree(folder / str(step))
    options = _options(keep_every, before_commit=sign)
    with ocp.CheckpointManager(folder, options=options) as manager:
      items = {
        _STATE: ocp.args.StandardSave(host),
        _META: ocp.args.JsonSave(content),
      }
      if not manager.save(content["t"], args=ocp.args.Composite(**items)):
        raise RuntimeError("refused by Orbax")
      manager.wait_until_finished()
  except Exception as error:
    for _ in range(5):  # the other arrays are still being written
      _sweep(folder, "*" + unfinished)
      time.sleep(0.05)
    raise CheckpointError(
      f"{path} could not be written: {_words(error)}"
    ) from error
  return content


def _sweep(folder, pattern):
  for path in folder.glob(pattern):
    shutil.rmtree(path, ignore_errors=True)


def _options(keep_every, before_commit):
  ocp = _orbax()
  policies = ocp.checkpoint_managers
  kept = [policies.LatestN(2)]  # one to go on from, one to fall back to
  if keep_every:
    kept.append(policies.EveryNSteps(keep_every, exact_interval=False))
  return ocp.CheckpointManagerOptions(
    save_decision_policy=policies.FixedIntervalPolicy(1),  # all that is asked
    preservation_policy=policies.AnyPreservationPolicy(kept),
    lightweight_initialize=True,  # reads nothing of the others, damaged or not
    async_options=ocp.AsyncOptions(
      post_finalization_callback=before_commit,
      # Or a folder that cannot be made is waited for, for twenty minutes.
      create_directories_asynchronously=False,
    ),
  )


def _read(path, abstract_state):
  """Reads one checkpoint; returns it and its T/meta."""
  ocp, t = _orbax(), int(path.name)
  options = ocp.CheckpointManagerOptions(
    read_only=True, lightweight_initialize=True
  )
  with ocp.CheckpointManager(path.parent, options=options) as manager:

    def load(name, args):
      return manager.restore(t, args=ocp.args.Composite(**{name: args}))[name]

    try:
      content = load(_META, ocp.args.JsonRestore())
      _check_format(path, content)
      # Orbax takes some damaged numbers, and chokes on others noisily.
      if (path / _DIGEST).read_text() != _digest_of_files(path):
        raise ValueError("its files are not those written")
      wanted = state_arrays.specs(abstract_state)
      state_arrays.check_specs(str(path), content["leaves"], wanted)
      arrays = state_arrays.by_name(load(_STATE, ocp.args.StandardRestore()))
      if state_arrays.marks(arrays).digest != content["digest"]:
        raise ValueError("its numbers are not those saved")
    except UserError:
      raise
    except Exception as error:  # of as many kinds as there is damage
      raise CheckpointError(f"{path} is damaged: {_words(error)}") from error
  state = state_arrays.to_device(arrays, abstract_state)
  return Restored(t, state, content["meta"]), content


def _check_format(path, content):
  number = content.get("format") if isinstance(content, dict) else None
  if number not in (None, FORMAT):  # without one, it is damaged
    raise UserError(
      f"{path} is of format {number!r}, and only {FORMAT} is known; use the "
      "program that wrote it"
    )


def _digest_of_files(path):
  """Of what Orbax reads of a checkpoint; T is part of it."""
  result = hashlib.blake2b(digest_size=16)
  t = path.name.partition(".")[0]  # Orbax takes off what follows in the end
  items = (path / item for item in (_META, _STATE))
  for file in sorted(x for item in items for x in item.rglob("*")):
    if file.is_file():
      content = file.read_bytes()
      name = file.relative_to(path)
      result.update(f"{t} {name} {len(content)} ".encode() + content)
  return result.hexdigest()


def _words(error):
  """What is wrong, in one line; of a long story the end."""
  text = getattr(error, "strerror", None) or str(error) or type(error).__name__
  text = re.split(r" \[(?:os_error|tensorstore|source)", text)[0]
  text = " ".join(text.split())
  return text if len(text) < 100 else text.rpartition(": ")[2][-200:]


@functools.cache
def _orbax():
  """The package, loaded where it is used: many a run does without."""
  import orbax.checkpoint as ocp

  # It comments on much that is in order, and on a failure beside raising it.
  for name in ("absl", "asyncio"):
    logging.getLogger(name).addFilter(_is_of_others)
  sys.unraisablehook = functools.partial(_unraisable, sys.unraisablehook)
  return ocp


def _is_of_others(record):
  text = record.pathname + record.getMessage()
  return not re.search(r"/orbax/|\.orbax-checkpoint", text)


def _unraisable(otherwise, problem):
  """Drops what writes report after another one of them has failed."""
  is_late = str(problem.exc_value) == "Event loop is closed"
  if problem.object is not None or not is_late:
    otherwise(problem)

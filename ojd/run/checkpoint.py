"""Checkpoints of a run: all that changes in it, stored by Orbax.

T/state     the arrays as the first T frames left them, in Orbax's own format
T/meta      the counts and the clock; the arrays' names, shapes and digest
T/digest    of the files of both: where it fits, the checkpoint is whole

Saving stops the caller for the copy to the host only; a thread does the rest,
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

import jax
import numpy as np

from ojd.distill import State
from ojd.errors import UserError
from ojd.run import build, state_arrays, workdir
from ojd.run import stats as stats_lib
from ojd.types import Array

KEEP_EVERY = 1000  # frames
FORMAT = 3  # of T/meta
_STATE, _META, _DIGEST = "state", "meta", "digest"


class Snapshot(NamedTuple):
  """A moment of a run: everything that it takes to resume from there."""

  t: int  # index of the frame that comes next
  state: State
  reference: np.ndarray | None  # [H, W] uint8; None before the first labels
  reference_t: int | None  # the frame of those labels
  stats: stats_lib.RunStats
  seconds: dict[str, float]  # of every stage
  counts: dict[str, int]


class Saved(NamedTuple):
  """The arrays of a snapshot."""

  system: State
  reference: Array  # [H, W] uint8, the latest labels, for the overlay


def abstract(job: build.Job) -> Saved:
  """Types and shapes of the arrays of a job's snapshots."""
  spec = job.stream.spec
  reference = jax.ShapeDtypeStruct((spec.height, spec.width), np.uint8)
  return Saved(build.abstract_state(job), reference)


class CheckpointError(RuntimeError):
  """A checkpoint could not be written, or is damaged; in one line."""


class Checkpointer:
  """The checkpoints of a run, to which one process at a time may add.

  Nothing is made before the first save, and reading changes nothing. Without
  `close` the last save may be lost.
  """

  def __init__(
    self,
    path: pathlib.Path,
    abstract: Saved,
    about: dict[str, Any],
    keep_every: int = KEEP_EVERY,
  ):
    """Names the checkpoints of a workdir, which need not exist yet.

    Args:
      path: the workdir.
      abstract: types and shapes of the arrays.
      about: JSON; which run this is.
      keep_every: frames. Beside the newest two, the first checkpoint is kept
        and from there on one in so many frames; 0 keeps the newest two only.
    """
    self._metrics = path / workdir.METRICS
    # Orbax takes no relative path.
    self.folder = (path / workdir.CHECKPOINTS).absolute()
    self._abstract, self._about = abstract, about
    self._keep_every = keep_every
    self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
    self._writing: concurrent.futures.Future | None = None
    self._latest: int | None = None  # the last that was saved or read

  def save(
    self, snapshot: Snapshot, before: Callable[[], None] = lambda: None
  ) -> None:
    """Copies a snapshot, and writes it in the background.

    Waits for the save before. Later checkpoints are deleted: a run that went
    back may take another course.

    Args:
      snapshot: its state's buffers are the caller's again on return.
      before: called in the thread, before anything is written; waits until all
        other files of the run have come so far.

    Raises:
      CheckpointError: the save before failed, and this one is not begun.
    """
    if snapshot.t == self._latest:
      return
    self.wait()
    meta = {
      "stats": snapshot.stats.to_json(),
      "seconds": snapshot.seconds,
      "counts": snapshot.counts,
      "reference_t": snapshot.reference_t,
      "run": self._about,
    }
    reference = snapshot.reference
    if reference is None:
      reference = np.zeros(self._abstract.reference.shape, np.uint8)
    saved = Saved(snapshot.state, reference)
    content = {"format": FORMAT, "t": int(snapshot.t)}
    content["leaves"] = state_arrays.specs(saved)
    content["meta"] = json.loads(json.dumps(meta))  # as it is now
    host = state_arrays.to_host(saved)
    self._writing = self._thread.submit(
      _write, *(self.folder, host, content, self._keep_every, before)
    )
    self._latest = snapshot.t

  def wait(self) -> None:
    """Waits until all is written; raises CheckpointError if it was not."""
    writing, self._writing = self._writing, None
    if writing is not None:
      try:
        writing.result()
      except CheckpointError:
        self._latest = None
        raise

  def close(self) -> None:
    """Waits as `wait` does and ends the thread; again does nothing."""
    try:
      self.wait()
    finally:
      self._thread.shutdown()

  def steps(self) -> list[int]:
    """The t of every checkpoint, ascending; waits for one being written."""
    if self._writing is not None:
      concurrent.futures.wait([self._writing])
    return _steps(self.folder)

  def latest(
    self, at_most: int | None = None
  ) -> tuple[Snapshot | None, list[str]]:
    """Reads the newest checkpoint from which the run can resume.

    It is whole, and the metrics reach as far as it does.

    Args:
      at_most: those of a greater t are passed over.

    Returns:
      The snapshot with its arrays on the default device, bit for bit, None
      where there is none; and for each newer one a line why not that.

    Raises:
      UserError: a checkpoint is of another state or format.
    """
    self.wait()
    num_lines, problems = _num_lines(self._metrics), []
    for t in reversed(self.steps()):
      if at_most is not None and t > at_most:
        continue
      try:
        saved, meta = _read(self.folder / str(t), self._abstract)
      except CheckpointError as error:
        problems.append(str(error))
        continue
      stats = stats_lib.RunStats.from_json(meta["stats"])
      if stats.num_frames > num_lines:
        problems.append(f"the metrics end before frame {t}")
        continue
      self._latest = t
      stats.num_resumed += 1
      has_reference = meta["reference_t"] is not None
      snapshot = Snapshot(
        t=t,
        state=saved.system,
        reference=np.asarray(saved.reference) if has_reference else None,
        reference_t=meta["reference_t"],
        stats=stats,
        seconds=meta["seconds"],
        counts=meta["counts"],
      )
      return snapshot, problems
    return None, problems


def _num_lines(path):
  """Whole lines of a file; 0 where there is none."""
  if not path.exists():
    return 0
  with path.open("rb") as file:
    return sum(line.endswith(b"\n") for line in file)


def _steps(folder):
  """Orbax gives a checkpoint its bare number once all of it is there."""
  if not folder.is_dir():
    return []
  names = [path.name for path in folder.iterdir() if path.is_dir()]
  return sorted(int(x) for x in names if x.isdecimal() and x == str(int(x)))


def _write(folder, host, content, keep_every, before):
  """Writes one checkpoint and drops what is not to be kept.

  Args:
    folder: of all checkpoints.
    host: of `state_arrays.to_host`, for this function alone.
    content: T/meta but for the digest, which is added.
    keep_every: of `Checkpointer`.
    before: called first.
  """
  ocp = _orbax()
  path = folder / str(content["t"])
  unfinished = ocp.utils.TMP_DIR_SUFFIX + "*"

  def sign():
    for part in folder.glob(path.name + unfinished):
      (part / _DIGEST).write_text(_digest_of_files(part))

  try:
    before()
    content["digest"] = state_arrays.hashes(state_arrays.by_name(host)).digest
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


def _sweep(folder, pattern):
  for path in folder.glob(pattern):
    shutil.rmtree(path, ignore_errors=True)


def _options(keep_every, before_commit):
  ocp = _orbax()
  policies = ocp.checkpoint_managers
  kept = [policies.LatestN(2)]  # one to resume from, one to fall back to
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
  """Reads one checkpoint; returns its arrays and what was saved with them."""
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
      if state_arrays.hashes(arrays).digest != content["digest"]:
        raise ValueError("its numbers are not those saved")
    except UserError:
      raise
    except Exception as error:  # of as many kinds as there is damage
      raise CheckpointError(f"{path} is damaged: {_words(error)}") from error
  return state_arrays.to_device(arrays, abstract_state), content["meta"]


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

"""Checkpoints of a run: everything that changes in it, stored by Orbax.

T/state     the arrays after the first T frames, in Orbax's own format
T/meta      the counts and the clock; the arrays' names, shapes and digest
T/digest    digest of the files of both; if it matches, the checkpoint is whole

A save blocks the caller only while the arrays are copied to the host. A thread
does the rest, including the import of Orbax.
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
  """Everything that is needed to resume a run at one frame."""

  t: int  # index of the next frame
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
  """A checkpoint cannot be written, or is damaged; the message is one line."""


class Checkpointer:
  """Writes and reads the checkpoints of a run; one process at a time may write.

  The folder is made at the first save, and reading changes nothing. The last
  save may be lost unless `close` is called.
  """

  def __init__(
    self,
    path: pathlib.Path,
    abstract: Saved,
    about: dict[str, Any],
    keep_every: int = KEEP_EVERY,
  ):
    """Refers to the checkpoints of a workdir, which need not exist yet.

    Args:
      path: the workdir.
      abstract: types and shapes of the arrays.
      about: JSON that identifies the run.
      keep_every: frames. Beside the newest two, the first checkpoint is kept,
        and then one in every `keep_every` frames; 0 keeps only the newest two.
    """
    self._metrics = path / workdir.METRICS
    # Orbax takes no relative path.
    self.folder = (path / workdir.CHECKPOINTS).absolute()
    self._abstract, self._about = abstract, about
    self._keep_every = keep_every
    self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
    self._writing: concurrent.futures.Future | None = None
    self._latest: int | None = None  # t of the last one saved or read

  def save(
    self, snapshot: Snapshot, before: Callable[[], None] = lambda: None
  ) -> None:
    """Copies a snapshot and writes it in the background.

    Waits for the previous save. Later checkpoints are deleted, since a run that
    resumes from an earlier one may take another course.

    Args:
      snapshot: the caller may reuse the buffers of its state on return.
      before: called in the thread before anything is written; waits until all
        other files of the run have reached this frame.

    Raises:
      CheckpointError: the previous save failed; this one does not start.
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
    content["meta"] = json.loads(json.dumps(meta))  # a copy of it
    host = state_arrays.to_host(saved)
    self._writing = self._thread.submit(
      _write, *(self.folder, host, content, self._keep_every, before)
    )
    self._latest = snapshot.t

  def wait(self) -> None:
    """Waits for the current save; raises CheckpointError if it failed."""
    writing, self._writing = self._writing, None
    if writing is not None:
      try:
        writing.result()
      except CheckpointError:
        self._latest = None
        raise

  def close(self) -> None:
    """Waits as `wait` does and ends the thread; a second call does nothing."""
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

    Such a checkpoint is whole, and the metrics reach at least as far.

    Args:
      at_most: checkpoints with a greater t are skipped.

    Returns:
      The snapshot with its arrays on the default device, bit for bit, or None
      if there is none; and for each newer checkpoint one line that says why it
      cannot be used.

    Raises:
      UserError: a checkpoint has another state or format.
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
  """The number of whole lines of a file; 0 if there is no file."""
  if not path.exists():
    return 0
  with path.open("rb") as file:
    return sum(line.endswith(b"\n") for line in file)


def _steps(folder):
  """The t of every checkpoint; Orbax renames a folder to T once it is whole."""
  if not folder.is_dir():
    return []
  names = [path.name for path in folder.iterdir() if path.is_dir()]
  return sorted(int(x) for x in names if x.isdecimal() and x == str(int(x)))


def _write(folder, host, content, keep_every, before):
  """Writes one checkpoint and deletes those that are no longer kept.

  Args:
    folder: of all checkpoints.
    host: of `state_arrays.to_host`, for this function alone.
    content: T/meta without the digest, which is added here.
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
    _sweep(folder, "*" + unfinished)  # left by killed processes
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
    for _ in range(5):  # other arrays may still be being written
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
    save_decision_policy=policies.FixedIntervalPolicy(1),  # every call saves
    preservation_policy=policies.AnyPreservationPolicy(kept),
    lightweight_initialize=True,  # does not read the others
    async_options=ocp.AsyncOptions(
      post_finalization_callback=before_commit,
      # Otherwise Orbax waits 20 minutes for a folder that cannot be made.
      create_directories_asynchronously=False,
    ),
  )


def _read(path, abstract_state):
  """Reads one checkpoint; returns its arrays and its metadata."""
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
      # Orbax accepts some damaged numbers, and logs much about others.
      if (path / _DIGEST).read_text() != _digest_of_files(path):
        raise ValueError("its files have changed since they were written")
      wanted = state_arrays.specs(abstract_state)
      state_arrays.check_specs(str(path), content["leaves"], wanted)
      arrays = state_arrays.by_name(load(_STATE, ocp.args.StandardRestore()))
      if state_arrays.hashes(arrays).digest != content["digest"]:
        raise ValueError("its numbers differ from those saved")
    except UserError:
      raise
    except Exception as error:  # Orbax raises many kinds
      raise CheckpointError(f"{path} is damaged: {_words(error)}") from error
  return state_arrays.to_device(arrays, abstract_state), content["meta"]


def _check_format(path, content):
  number = content.get("format") if isinstance(content, dict) else None
  if number not in (None, FORMAT):  # without a number it is damaged
    raise UserError(
      f"{path} has format {number!r}, and this version reads only {FORMAT}; "
      "use the version that wrote it"
    )


def _digest_of_files(path):
  """The digest of T and of all files that Orbax reads of a checkpoint."""
  result = hashlib.blake2b(digest_size=16)
  t = path.name.partition(".")[0]  # Orbax removes the suffix at the end
  items = (path / item for item in (_META, _STATE))
  for file in sorted(x for item in items for x in item.rglob("*")):
    if file.is_file():
      content = file.read_bytes()
      name = file.relative_to(path)
      result.update(f"{t} {name} {len(content)} ".encode() + content)
  return result.hexdigest()


def _words(error):
  """The error in one line; of a long message only the end."""
  text = getattr(error, "strerror", None) or str(error) or type(error).__name__
  text = re.split(r" \[(?:os_error|tensorstore|source)", text)[0]
  text = " ".join(text.split())
  return text if len(text) < 100 else text.rpartition(": ")[2][-200:]


@functools.cache
def _orbax():
  """Imports Orbax on first use, since many runs do not need it."""
  import orbax.checkpoint as ocp

  # It logs much about normal operation, and also logs the errors it raises.
  for name in ("absl", "asyncio"):
    logging.getLogger(name).addFilter(_is_of_others)
  sys.unraisablehook = functools.partial(_unraisable, sys.unraisablehook)
  return ocp


def _is_of_others(record):
  text = record.pathname + record.getMessage()
  return not re.search(r"/orbax/|\.orbax-checkpoint", text)


def _unraisable(otherwise, problem):
  """Drops the errors of writes that end after another write has failed."""
  is_late = str(problem.exc_value) == "Event loop is closed"
  if problem.object is not None or not is_late:
    otherwise(problem)

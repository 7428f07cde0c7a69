"""Trackers: curves of a run in TensorBoard and Weights & Biases.

A tracker takes the lines of metrics.jsonl. If a tracker fails, the run reports
it once, switches the tracker off and goes on.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import queue
import threading
import time
import uuid
from typing import Any, Protocol

from ojd.errors import UserError
from ojd.run import workdir

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}  # by flag
_PROJECT = "ojd"  # at Weights & Biases, unless $WANDB_PROJECT names another
_RUN_ID = "run_id.txt"
_KEY_FRAMES_ONLY = ("num_updates", "stride")
_QUEUE_LENGTH = 256
_TIMEOUT = 10.0  # seconds that a tracker may delay the stream
_CLOSE_TIMEOUT = 60.0  # and the end of the run


class Tracker(Protocol):
  """Draws curves; may raise any exception."""

  def write(self, line: dict[str, Any]) -> None:
    """Takes the metrics of a frame."""
    ...

  def close(self) -> None:
    """Sends the rest."""
    ...


def require(name: str) -> None:
  """Raises a UserError if a tracker cannot work on this machine."""
  package = PACKAGES[name]
  if importlib.util.find_spec(package) is None:
    raise UserError(
      f"--{name} needs the package {package}: pip install 'ojd[{name}]'"
    )
  if name == "wandb":
    _require_login()


def _require_login():
  import wandb

  mode = os.environ.get("WANDB_MODE", "online")
  if mode == "online" and not wandb.login(prompt=False, verify=False):
    raise UserError(
      "--wandb: you are not logged in; type `wandb login` first, or set "
      "WANDB_MODE=offline"
    )


def scalars(line: dict[str, Any]) -> dict[str, float]:
  """The numbers of a line that become curves."""
  left_out = {"t", "key_t", "eval_t"}
  if not line.get("is_key"):
    left_out.update(_KEY_FRAMES_ONLY)
  return {
    name: float(value)
    for name, value in line.items()
    if isinstance(value, int | float)
    and not isinstance(value, bool)
    and name not in left_out
  }


class TensorBoard:
  """Event files in a folder; each frame is written at once."""

  def __init__(self, folder: pathlib.Path, start: int = 0):
    """Opens a new file; readers drop frame `start` on from older ones."""
    # SummaryWriter is not used: it waits forever once its thread has died.
    from tensorboardX import event_file_writer
    from tensorboardX.proto import event_pb2, summary_pb2

    self._event, self._summary = event_pb2.Event, summary_pb2.Summary
    folder.mkdir(exist_ok=True)
    # Names have the time in seconds; two starts in one second must differ.
    suffix = f".{len(list(folder.iterdir()))}"
    self._file = event_file_writer.EventsWriter(str(folder / "events"), suffix)
    if start:
      log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._add(step=start, session_log=log)

  def write(self, line: dict[str, Any]) -> None:
    values = [
      self._summary.Value(tag=name, simple_value=value)
      for name, value in scalars(line).items()
    ]
    self._add(step=line["t"], summary=self._summary(value=values))

  def _add(self, **content):
    self._file.write_event(self._event(wall_time=time.time(), **content))
    self._file.flush()

  def close(self) -> None:
    self._file.close()


class WandB:
  """A run at Weights & Biases, online or offline as $WANDB_MODE says."""

  def __init__(
    self, path: pathlib.Path, config: dict[str, Any], num_logged: int = 0
  ):
    """Starts or resumes the tracked run of a workdir.

    Args:
      path: the workdir.
      config: the flags of the run.
      num_logged: frames below this one are already logged.
    """
    import wandb

    self._num_logged = num_logged
    self._run = wandb.init(
      project=os.environ.get("WANDB_PROJECT", _PROJECT),
      name=path.name,
      id=_run_id(path / workdir.WANDB),
      resume="allow",
      dir=path,
      config=config,
      settings=wandb.Settings(console="off"),
    )

  def write(self, line: dict[str, Any]) -> None:
    if line["t"] >= self._num_logged:
      self._run.log(scalars(line), step=line["t"])

  def close(self) -> None:
    self._run.finish()


def _run_id(folder):
  """The id of a workdir's tracked run; a new one if it has none."""
  folder.mkdir(exist_ok=True)
  path = folder / _RUN_ID
  if not path.exists():
    path.write_text(uuid.uuid4().hex[:12])
  return path.read_text()


class Guarded:
  """Runs a tracker in a thread of its own, and reports its failure once."""

  def __init__(
    self,
    name: str,
    tracker: Tracker,
    timeout: float = _TIMEOUT,
    close_timeout: float = _CLOSE_TIMEOUT,
  ):
    """Starts the thread.

    Args:
      name: of the flag.
      tracker: used only by the thread.
      timeout: seconds to wait for a tracker whose queue is full.
      close_timeout: seconds to wait for it at the end.
    """
    self._name, self._tracker = name, tracker
    self._timeout, self._close_timeout = timeout, close_timeout
    self._queue: queue.Queue = queue.Queue(_QUEUE_LENGTH)
    self._problem, self._is_off = "", False
    self._thread = threading.Thread(target=self._drain, daemon=True)
    self._thread.start()

  def _drain(self):
    try:
      while (line := self._queue.get()) is not None:
        self._tracker.write(line)
      self._tracker.close()
    except Exception as error:
      words = " ".join(str(error).split())
      self._problem = f"{type(error).__name__}: {words}"
      with contextlib.suppress(Exception):
        self._tracker.close()

  def write(self, line: dict[str, Any]) -> str:
    """Hands a line over; returns the first problem, or ""."""
    if self._is_off:
      return ""
    if not self._problem:
      try:
        self._queue.put(line, timeout=self._timeout)
        return ""
      except queue.Full:
        hung = f"it has hung for {self._timeout:g} s"
        self._problem = self._problem or hung
    return self._switch_off()

  def close(self) -> str:
    """Waits until everything is written; returns a new problem, or ""."""
    if self._is_off:
      return ""
    end = time.monotonic() + self._close_timeout
    with contextlib.suppress(queue.Full):
      self._queue.put(None, timeout=self._close_timeout)
    self._thread.join(max(0.0, end - time.monotonic()))
    if self._thread.is_alive():
      self._problem = f"it does not end within {self._close_timeout:g} s"
    return self._switch_off() if self._problem else ""

  def _switch_off(self):
    self._is_off = True
    return f"--{self._name} is switched off: {self._problem}"


class Trackers:
  """All trackers of a run, behind one interface."""

  def __init__(self, guarded: tuple[Guarded, ...] = ()):
    self._guarded = guarded

  def write(self, line: dict[str, Any]) -> str:
    """Hands a line to each; returns the problems, or ""."""
    return _joined(x.write(line) for x in self._guarded)

  def close(self) -> str:
    """Closes each; returns the problems, or ""."""
    return _joined(x.close() for x in self._guarded)


NONE = Trackers()


def _joined(problems):
  """All problems in one line; goes through all of them first."""
  return "; ".join(problem for problem in problems if problem)


def open_trackers(
  path: pathlib.Path, flags: dict[str, Any], start: int = 0
) -> tuple[Trackers, list[str]]:
  """Opens the trackers that a run asks for.

  Args:
    path: the workdir, with the metrics of the run if it resumes.
    flags: of the run, by name.
    start: the next frame.

  Returns:
    The trackers, and a line for each one that cannot be opened.
  """
  makers = {
    "tensorboard": lambda: TensorBoard(path / workdir.TENSORBOARD, start),
    "wandb": lambda: WandB(path, flags, _num_logged(path / workdir.METRICS)),
  }
  guarded, problems = [], []
  for name, make in makers.items():
    if flags[name]:
      try:
        guarded.append(Guarded(name, make()))
      except Exception as error:
        words = " ".join(str(error).split())
        problems.append(f"--{name} is switched off: {words}")
  return Trackers(tuple(guarded)), problems


def _num_logged(path):
  """The frame after the last one in the metrics; 0 if there are none."""
  num_logged = 0
  with contextlib.suppress(OSError), path.open("rb") as file:
    for line in file:
      if line.endswith(b"\n"):
        num_logged = json.loads(line)["t"] + 1
  return num_logged

"""A run that is going on, looked after by a process of its own."""

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Mapping, Sequence

from launch import child
from launch.ledger import Ledger
from launch.runs import Run
from ojd import processes

GRACE_SECONDS = 30.0  # from the wish that a run ends to its end by force
# Beyond these, for the system to end what was killed.
_LAST_SECONDS = 15.0


def caps(cores: int) -> dict[str, str]:
  """Variables that keep the libraries of a run to so many threads."""
  names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
  # NPROC is how many XLA believes that there are.
  return dict.fromkeys((*names, "NPROC"), str(cores))


class Supervised:
  """One start of a run. Neither outlives the process that made it."""

  def __init__(
    self,
    run: Run,
    books: Ledger,
    *,
    cores: int | Sequence[int],
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
    grace: float = GRACE_SECONDS,
  ):
    """Starts the run.

    Args:
      run: what to start.
      books: where its log and its end are written.
      cores: how many it may use, or which.
      environment: variables beside those of this process.
      folder: in which the command is meant; here by default.
      grace: seconds it has to end once it is told to.
    """
    self.grace = grace
    folder = folder or os.getcwd()
    which = [] if isinstance(cores, int) else list(cores)
    order = child.Order(
      command=list(run.command),
      folder=folder,
      log=str(pathlib.Path(folder, books.log(run))),
      record=str(pathlib.Path(folder, books.record(run))),
      environment={**caps(len(which) or cores), **(environment or {})},
      cores=which,
      grace=grace,
    )
    self._process = processes.Child(
      f"{child.__name__}:serve", cwd=folder, stdout=subprocess.DEVNULL
    )
    self._process.send(order)

  def poll(self) -> int | None:
    """The exit code, None while the run goes on."""
    code = self._process.process.poll()
    if code is not None:
      self._process.connection.close()
    return code

  def wait(self, seconds: float | None = None) -> int | None:
    """The exit code; None where the run goes on after so many seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.process.wait(seconds)
    return self.poll()

  def stop(self) -> None:
    """Tells the run to end, and does not wait for it."""
    self._process.send(child.STOP)

  def end(self) -> None:
    """Ends the run and all that it started, and waits for that."""
    self.stop()
    self.wait(self.grace + _LAST_SECONDS)
    self.kill()

  def kill(self) -> None:
    """The same at once."""
    self._process.send(child.KILL)
    if self.wait(_LAST_SECONDS) is None:
      self._process.kill()
      self.wait(_LAST_SECONDS)

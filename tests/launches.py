"""Launches of `tests.busy`, and a look at the processes they start."""

import subprocess
import sys
import time

import psutil

from launch import registry as registry_lib
from launch.runs import Run
from tests import binaries

_SECONDS = 240.0
_TABLE = """
binary = "record"
output = "{}/out"
memory_gb = 0.5

[flags]
teacher = "ground_truth"
height = 32
width = 48

[grid.length]
"""


def table(folder, lengths, more="") -> str:
  """The path of a table of recordings of so many frames."""
  text = _TABLE.format(folder)
  for length in lengths:
    text += f"{length}.stream = 'synthetic:park?num_frames={length}'\n"
  path = folder / "table.toml"
  path.write_text(text + more)
  return str(path)


def run(output, *words, name="run") -> Run:
  """A run that does what the words say, in a folder of the output."""
  folder = output / name
  return Run(name, ("tests.busy", str(folder), *words), folder)


def registry(output) -> registry_lib.Registry:
  """Of a launch into the output."""
  (output / "launch").mkdir(exist_ok=True)
  return registry_lib.in_output(output)


def wait_for(is_true, process=None):
  """Until it is so; what is started by then may not have ended."""
  deadline = time.monotonic() + _SECONDS
  while not is_true():
    assert time.monotonic() < deadline
    assert process is None or process.poll() is None
    time.sleep(0.02)


def is_living(pid) -> bool:
  """Whether a process is at work; one that waits to be buried is not."""
  try:
    status = psutil.Process(int(pid)).status()
  except psutil.NoSuchProcess:
    return False
  return status not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def processes(folder, word="") -> list[int]:
  """Those with the folder, and the word, on their command line."""
  found = []
  for process in psutil.process_iter(["cmdline"]):
    line = " ".join(process.info["cmdline"] or [])
    if str(folder) in line and word in line:
      found.append(process.pid)
  return found


def command(launcher, *words) -> list[str]:
  """That of a person who starts a launcher."""
  return [sys.executable, "-m", f"launch.{launcher}", *words]


def launch(launcher, *words, **options) -> subprocess.CompletedProcess:
  """What a launcher does and says."""
  return subprocess.run(
    command(launcher, *words),
    **{"cwd": binaries.ROOT, "capture_output": True, "text": True},
    timeout=_SECONDS,
    **options,
  )

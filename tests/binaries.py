"""Starts a binary of `experiments` as a person does."""

import atexit
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
_TIMEOUT = 300  # seconds


def command(name: str, *flags: str) -> list[str]:
  """`python -m experiments.NAME FLAGS`, for a process of its own."""
  return [sys.executable, "-m", f"experiments.{name}", *flags]


def run(name: str, *flags: str) -> subprocess.CompletedProcess:
  """What the command does, with its output as text; forked, to be quick."""
  return run_module(f"experiments.{name}", *flags)


def run_module(module: str, *flags: str) -> subprocess.CompletedProcess:
  """The same of `python -m MODULE FLAGS`."""
  zygote = _zygote()
  with tempfile.TemporaryDirectory() as folder:
    files = [pathlib.Path(folder) / kind for kind in ("stdout", "stderr")]
    request = {
      "module": module,
      "flags": flags,
      # As a binary that starts by itself would have it.
      "environ": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
      "timeout": _TIMEOUT,
      **{path.name: str(path) for path in files},
    }
    zygote.stdin.write(json.dumps(request) + "\n")
    zygote.stdin.flush()
    code = json.loads(zygote.stdout.readline())
    stdout, stderr = (path.read_text() for path in files)
  words = [sys.executable, "-m", module, *flags]
  if code == -signal.SIGALRM:
    raise subprocess.TimeoutExpired(words, _TIMEOUT, stdout, stderr)
  return subprocess.CompletedProcess(words, code, stdout, stderr)


def succeed(name: str, *flags: str) -> subprocess.CompletedProcess:
  """The same, where nothing goes wrong."""
  result = run(name, *flags)
  assert result.returncode == 0, result.stderr
  return result


def start(name: str, *flags: str, **options) -> subprocess.Popen:
  """A process of its own, whose output is text."""
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
  words, options = command(name, *flags), pipes | options
  return subprocess.Popen(words, cwd=ROOT, text=True, **options)


def interrupted(name: str, *flags: str, begun, number=signal.SIGINT):
  """Stdout and stderr of a binary whose group a signal ends, as in a terminal.

  The signal is sent once `begun(process)`; nothing else may end it before.
  """
  process = start(name, *flags, start_new_session=True)
  deadline = time.monotonic() + _TIMEOUT
  try:
    while not begun(process):
      assert process.poll() is None and time.monotonic() < deadline
      time.sleep(0.005)
    os.killpg(process.pid, number)
    stdout, stderr = process.communicate(timeout=_TIMEOUT)
  finally:
    process.kill()
  assert process.returncode == 128 + number and "Traceback" not in stderr
  return stdout, stderr


def num_lines(path: pathlib.Path) -> int:
  """Whole lines of a file; none where there is no file yet."""
  try:
    return path.read_bytes().count(b"\n")
  except OSError:
    return 0


def assert_refused(result: subprocess.CompletedProcess, *words: str) -> None:
  """Exit code 2 and one line that has the words, the only output."""
  assert result.returncode == 2, result.stderr
  assert result.stderr.startswith("error: ") and not result.stdout
  assert result.stderr.count("\n") == 1
  for word in words:
    assert word in result.stderr


@functools.cache
def _zygote():
  process = subprocess.Popen(
    [sys.executable, "-m", "tests.zygote"],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  atexit.register(_end, process)
  return process


def _end(process):
  process.stdin.close()  # it reads no more, and ends
  process.stdout.close()
  process.wait(10)

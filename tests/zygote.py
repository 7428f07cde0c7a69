"""A process that has the large libraries loaded, and forks to run binaries.

A test of a binary would otherwise spend most of its time on the same imports,
and on taking them apart again. What is forked imports this project anew and
runs a module as `python -m` does. Nothing here computes before the fork, so
that no library has threads yet.
"""

import atexit
import importlib
import json
import os
import runpy
import signal
import sys
import tempfile
import threading
import traceback
import warnings

_LIBRARIES = (
  *("jax", "flax.linen", "optax", "orbax.checkpoint", "av", "cv2"),
  *("PIL.Image", "imageio.v3", "torch", "torchvision", "absl.app"),
  "scipy.ndimage",
)


def _serve():
  """Forks for every line of stdin; in the fork, gives what it asks for."""
  for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if pid == 0:
      return request
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
  return None


def _become(request):
  """Runs the module in this process, with its streams in files."""
  signal.alarm(request["timeout"])
  with open(os.devnull, "rb") as nothing:
    os.dup2(nothing.fileno(), 0)
  for number, path in ((1, request["stdout"]), (2, request["stderr"])):
    with open(path, "wb") as file:
      os.dup2(file.fileno(), number)
  os.environ.clear()
  os.environ.update(request["environ"])
  warnings.resetwarnings()
  tempfile.tempdir = None  # TMPDIR may be another here
  sys.argv = [request["module"], *request["flags"]]
  code = 0
  try:
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
  except SystemExit as end:
    if isinstance(end.code, str):  # a last word
      print(end.code, file=sys.stderr)
    code = 1 if isinstance(end.code, str) else end.code or 0
  except BaseException:
    traceback.print_exc()
    code = 1
  # As the interpreter ends, but for taking the libraries apart: a second.
  threading._shutdown()
  atexit._run_exitfuncs()
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
  os._exit(code)


if __name__ == "__main__":
  for name in _LIBRARIES:
    importlib.import_module(name)
  warnings.simplefilter("ignore")  # of JAX, which would be forked with threads
  wanted = _serve()
  if wanted is not None:
    _become(wanted)

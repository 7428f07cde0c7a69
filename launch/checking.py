"""Whether binaries take the flags of their runs, asked before any is started.

    python -m launch.checking < COMMANDS     # JSON: lists of words

It is a process of its own, for two binaries may have a flag of one name.
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence

from launch.runs import Run
from ojd.errors import UserError


def check(runs: Sequence[Run]) -> None:
  """Refuses a run whose binary would not take its flags."""
  if not runs:
    return
  done = subprocess.run(
    [sys.executable, "-m", __name__],
    input=json.dumps([run.command for run in runs]),
    capture_output=True,
    text=True,
  )
  if done.returncode:
    raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
  problems = json.loads(done.stdout)
  for run, problem in zip(runs, problems, strict=True):
    if problem:
      raise UserError(f"{run.name}: {problem}")


def problem(command: Sequence[str]) -> str:
  """What the binary would say against its flags, or nothing."""
  from absl import flags

  module, *words = command
  importlib.import_module(module)
  try:
    flags.FLAGS([module, *words])
  except flags.Error as error:
    return str(error).splitlines()[0]
  return ""


if __name__ == "__main__":
  json.dump([problem(command) for command in json.load(sys.stdin)], sys.stdout)

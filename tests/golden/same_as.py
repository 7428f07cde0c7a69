r"""Says whether this work tree behaves as another revision does.

    python -m tests.golden.same_as main
    python -m tests.golden.same_as HEAD~3 --only='^programs/|^run/jit$'
    python -m tests.golden.same_as main --fast

Checks REV out beside the work tree, runs `tests.golden.probe` in both, each on
a core of its own, and compares: the lowered programs of every system, gradient
step and network; runs of 40 frames of every system; runs over a simulated
network, resumed after a kill, forked, swept, and a fleet. What REV does is kept
in the user's cache, so a second comparison with it takes half the work. It
takes under five minutes on two cores; `--fast` takes one and looks at programs
and two runs.

Exit code 0: the same; 1: something differs, and each case's first difference is
printed. A commit that changes structure keeps this at 0; one that changes
behavior says so in its message, and why.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

import jax
import jaxlib

from tests.golden import probe

_ROOT = pathlib.Path(__file__).parents[2]
_PROBE = "tests/golden/probe.py"
_FAST = r"^programs/|^updates/|^run/jit$|^link/jit$"
# As test.sh has them: programs run once, and both sides alike.
_XLA_FLAGS = (
  "--xla_backend_optimization_level=0 "
  "--xla_llvm_disable_expensive_passes=true "
  "--xla_cpu_parallel_codegen_split_count=1 "
  "--xla_cpu_use_fusion_emitters=false"
)


def _git(*words):
  done = subprocess.run(
    ["git", "-C", _ROOT, *words], capture_output=True, check=False
  )
  if done.returncode:
    sys.exit(f"error: git {words[0]}: {done.stderr.decode().strip()}")
  return done.stdout


def _check_out(commit, folder):
  """Writes the files of a commit; one older than the probe gets the first."""
  content = io.BytesIO(_git("archive", commit))
  with tarfile.open(fileobj=content) as archive:
    archive.extractall(folder, filter="data")
  path = folder / _PROBE
  if not path.exists():
    log = _git("log", "--diff-filter=A", "--format=%H", "--", _PROBE)
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "__init__.py").touch()
    path.write_bytes(_git("show", f"{log.split()[-1].decode()}:{_PROBE}"))


def _start(tree, out, only, core):
  """A process that runs a tree's probe on one core."""
  env = os.environ | {
    "PYTHONPATH": str(tree),
    "OMP_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": _XLA_FLAGS,
  }
  cores = sorted(os.sched_getaffinity(0))
  mine = {cores[core % len(cores)]}
  return subprocess.Popen(
    [sys.executable, "-m", "tests.golden.probe", out, f"--only={only}"],
    cwd=tree,
    env=env,
    stdout=sys.stderr if core == 0 else subprocess.DEVNULL,
    preexec_fn=lambda: os.sched_setaffinity(0, mine),
  )


def _cache(commit, only):
  """Where the results of a commit are kept: they are of this machine."""
  about = (commit, only, jax.__version__, jaxlib.__version__)
  about += (platform.processor(), platform.machine(), _cpu())
  name = hashlib.sha256(repr(about).encode()).hexdigest()[:16]
  base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return pathlib.Path(base).expanduser() / "ojd" / "golden" / name


def _cpu():
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text()
  except OSError:
    return ""
  return "".join(re.findall(r"model name.*|flags.*", text)[:2])


def first_difference(here, there, path=""):
  """Where two JSON values first differ, in words; empty where nowhere."""
  if isinstance(here, dict) and isinstance(there, dict):
    for key in sorted(here.keys() | there.keys()):
      if key not in here or key not in there:
        side = "here" if key in here else "there"
        return f"{path}/{key} is only {side}"
      words = first_difference(here[key], there[key], f"{path}/{key}")
      if words:
        return words
    return ""
  if isinstance(here, list) and isinstance(there, list):
    if len(here) != len(there):
      return f"{path} has {len(here)} entries here, {len(there)} there"
    for i, pair in enumerate(zip(here, there, strict=True)):
      words = first_difference(*pair, f"{path}/{i}")
      if words:
        return words
    return ""
  # NaN is not equal to itself, and JSON's text of it is.
  if json.dumps(here) == json.dumps(there):
    return ""
  return f"{path} is {here!r} here, {there!r} there"


def compare(here, there):
  """The cases that differ by name, each with words that say how."""
  found = {}
  for name in sorted(here.keys() | there.keys()):
    if name not in there:
      continue  # a new case judges nothing yet
    if name not in here:
      found[name] = "the case is gone"
    elif "error" in here[name] or "error" in there[name]:
      sides = {"here": here[name], "there": there[name]}
      found[name] = "; ".join(
        f"{side}: {case['error']}"
        for side, case in sides.items()
        if "error" in case
      )
    else:
      words = first_difference(here[name], there[name])
      if words:
        found[name] = words
  return found


def main():
  """Compares, and says what differs."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("rev", help="the revision to compare with")
  parser.add_argument("--only", default="", help="cases whose name matches")
  parser.add_argument("--fast", action="store_true", help="programs, two runs")
  parser.add_argument("--keep", help="a folder for both sides' programs")
  args = parser.parse_args()
  only = args.only or (_FAST if args.fast else "")
  name = f"{args.rev}^{{commit}}"
  commit = _git("rev-parse", "--verify", name).decode().strip()
  cache = _cache(commit, only)
  with tempfile.TemporaryDirectory(prefix="same-as-") as folder:
    folder = pathlib.Path(folder)
    here = pathlib.Path(args.keep or folder) / "here"
    processes = [_start(_ROOT, here, only, 0)]
    if not (cache / probe.RESULTS).exists():
      (folder / "tree").mkdir()
      _check_out(commit, folder / "tree")
      processes.append(_start(folder / "tree", folder / "there", only, 1))
    codes = [process.wait() for process in processes]
    if any(codes):
      sys.exit("error: a probe failed; run it alone to see why")
    if len(processes) == 2:
      cache.parent.mkdir(parents=True, exist_ok=True)
      shutil.copytree(folder / "there", cache, dirs_exist_ok=True)
    if args.keep:
      shutil.copytree(cache, here.parent / "there", dirs_exist_ok=True)
    results = [
      json.loads((side / probe.RESULTS).read_text()) for side in (here, cache)
    ]
  differing = compare(*results)
  for name, words in differing.items():
    print(f"{name}: {words[:400]}")
  same = len(results[0]) - len(differing)
  print(f"{same} of {len(results[0])} cases are the same as at {args.rev}")
  return 1 if differing else 0


if __name__ == "__main__":
  sys.exit(main())

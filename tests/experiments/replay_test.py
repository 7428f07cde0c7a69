"""The replay binary as a person starts it, on a run of a thin student."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from ojd.run import workdir
from tests import binaries
from tests.reference import small_run

FLAGS = (
  *("--stream=synthetic:sports?num_frames=24", "--teacher=ground_truth"),
  *("--height=48", "--width=64", "--classes=person", "--checkpoint_every=1"),
  *("--init=random", "--model=jitnet:width=0.1"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  path = tmp_path_factory.mktemp("runs") / "a run"
  binaries.succeed("online_distill", *FLAGS, f"--workdir={path}")
  return path


def _replay(path, *flags, run=binaries.succeed):
  return run("replay", f"--workdir={path}", *flags)


def test_equal_run_is_0_and_another_1(run, tmp_path):
  result = _replay(run, "--from_frame=3")
  assert "bit-equal: the parameters after" in result.stdout
  path = shutil.copytree(run, tmp_path / "other") / workdir.METRICS
  lines = path.read_text().splitlines()
  lines[5] = json.dumps(json.loads(lines[5]) | {"eval_miou": 0.123})
  path.write_text("\n".join(lines) + "\n")
  result = _replay(path.parent, run=binaries.run)
  assert result.returncode == 1
  assert "first divergence: frame 5: mIoU 0.123 recorded" in result.stdout


@pytest.mark.slow  # two whole runs
def test_export_fork_and_sweep(run, tmp_path):
  file = tmp_path / "s.safetensors"
  result = _replay(run, "--at_frame=10", f"--export={file}")
  params = safetensors.numpy.load_file(file)
  assert all(x.dtype == np.float32 for x in params.values())
  assert (tmp_path / "s.jax").stat().st_size > 10_000

  child = tmp_path / "child"
  flags = (f"--fork={child}", "--from_frame=8", "--update=adam")
  result = _replay(run, *flags)
  assert f"a fork of {run} at frame 8" in result.stdout
  assert "starts with a new opt_state" in result.stderr
  again = _replay(run, *flags)
  assert "already, finished" in again.stdout
  page = (child / workdir.REPORT / "index.html").read_text()
  assert "--update=adam" in page and "experiments.replay" in page

  out = tmp_path / "sweep"
  flags = ("--sweep=a_thresh=0.5,0.9", f"--out={out}", "--to_frame=15")
  result = _replay(run, *flags)
  assert "2 combinations, 16 frames" in result.stdout
  assert (out / "sweep.csv").exists() and (out / "sweep.png").exists()


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--a_thresh=0.5"], "--a_thresh needs --fork"),
    (["--fork=x"], "--fork needs --from_frame=N"),
    (
      ["--fork=x", "--from_frame=1", "--to_frame=2"],
      "cannot be used with --fork",
    ),
    (["--at_frame=3"], "the other way round"),
    (["--export=no/such/folder/x", "--at_frame=3"], "there is no folder"),
    (["--export=x.jax", "--at_frame=3"], "is the program's"),
    (["--out=x"], "--out needs --sweep"),
    (["--fork=x", "--from_frame=1", "--a_thresh=3"], "--a_thresh=3.0"),
  ],
)
def test_what_cannot_be_is_one_line(run, flags, words):
  binaries.assert_refused(_replay(run, *flags, run=binaries.run), words)


def test_no_run_is_one_line(tmp_path):
  binaries.assert_refused(_replay(tmp_path, run=binaries.run), "--workdir")


@pytest.mark.slow
def test_full_disk_ends_a_run_with_one_line_and_loses_nothing(run, tmp_path):
  """No file may be larger than a checkpoint's; then there is room again."""
  path = tmp_path / "full"
  flags = (*FLAGS, "--nooverlay", f"--workdir={path}")
  limited = (
    "import resource, runpy;"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
    "runpy.run_module('experiments.online_distill', run_name='__main__')"
  )
  result = subprocess.run(
    [sys.executable, "-c", limited, *flags],
    cwd=binaries.ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == 1, result.stderr
  (line,) = [x for x in result.stderr.splitlines() if x.startswith("error: ")]
  assert "could not be written" in line and "Traceback" not in result.stderr
  lines = (path / workdir.METRICS).read_text().splitlines()
  assert lines and all(json.loads(x)["t"] == t for t, x in enumerate(lines))

  result = binaries.succeed("online_distill", *flags)
  assert small_run.lines(path) == small_run.lines(run)
  _replay(path)

"""Resume and replay, bit for bit, as compiled for users.

All other tests compile with fewer passes. This one runs the binaries in
processes of their own, without any XLA flag.
"""

import os
import subprocess
import sys

from ojd.run import workdir
from tests.reference import small_run

_FLAGS = (
  *("--stream=synthetic:sports?num_frames=24", "--teacher=ground_truth"),
  *("--classes=person", "--height=48", "--width=64", "--nooverlay"),
  *("--init=random", "--model=jitnet:width=0.1", "--save_masks=png"),
  *("--delta_min=4", "--u_max=3", "--checkpoint_every=2"),
)
# The binary, which dies like one that is killed after frame 13.
_KILLED = """
import os, runpy, sys
from ojd.run import loop
report = loop.Loop._report_progress
loop.Loop._report_progress = lambda self, problem: (
  os._exit(9) if self.next_t == 13 else report(self, problem)
)
sys.argv[0] = "online_distill"
runpy.run_module("experiments.online_distill", run_name="__main__")
"""


def _run(*words, expect=0):
  env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  done = subprocess.run(
    [sys.executable, *words], capture_output=True, text=True, env=env
  )
  assert done.returncode == expect, done.stderr
  return done.stdout


def test_killed_run_resumes_and_replays_bit_for_bit(tmp_path):
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  binary = ("-m", "experiments.online_distill", *_FLAGS)
  _run(*binary, f"--workdir={whole}")
  _run("-c", _KILLED, *_FLAGS, f"--workdir={killed}", expect=9)
  assert 0 < len(small_run.lines(killed)) < 24
  assert not (killed / workdir.SUMMARY).exists()
  _run(*binary, f"--workdir={killed}")
  assert small_run.lines(killed) == small_run.lines(whole)
  masks = sorted((whole / workdir.MASKS).iterdir())
  assert len(masks) >= 24
  for path in masks:
    twin = killed / workdir.MASKS / path.name
    assert twin.read_bytes() == path.read_bytes()
  summary = workdir.read_summary(killed)
  assert summary["finished"] and summary["resumed"] == 1
  words = _run("-m", "experiments.replay", f"--workdir={killed}")
  assert "bit-equal" in words

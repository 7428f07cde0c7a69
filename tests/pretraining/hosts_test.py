"""Training over two processes of this machine, joined as hosts are."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests import binaries
from tests.reference import parallel_training

NUM_STEPS = 6
_TIMEOUT = 240  # seconds


def _hosts(module, words):
  """Runs a process for each list of words: exit codes, output, errors."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  join = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={len(words)}"]
  processes = [
    subprocess.Popen(
      [sys.executable, "-m", module, *join, f"--process_id={i}", *mine],
      cwd=binaries.ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i, mine in enumerate(words)
  ]
  try:
    said = [process.communicate(timeout=_TIMEOUT) for process in processes]
  finally:
    for process in processes:
      process.kill()
  codes = [process.returncode for process in processes]
  return codes, *zip(*said, strict=True)


@pytest.mark.parametrize(
  "devices", [1, pytest.param(2, marks=pytest.mark.slow)]
)
def test_two_hosts_stop_together_go_on_and_learn_what_one_does(
  devices, tmp_path
):
  """Each has a disk of its own, and only the first one's is written."""
  folders = [tmp_path / name for name in ("first", "second", "alone")]
  for folder in folders:
    folder.mkdir()
  alone = parallel_training.train(folders[2], NUM_STEPS, None)
  words = [
    [f"--devices={devices}", str(folder), str(NUM_STEPS), fault, "none"]
    for folder, fault in zip(folders, ("none", "stop=2"), strict=False)
  ]
  codes, said, errors = _hosts("tests.reference.parallel_training", words)
  assert codes == [0, 0], errors
  first, second = (json.loads(text.splitlines()[-1]) for text in said)
  assert first == second
  assert [len(losses) for losses in first] == [3, 3]  # asked before the third
  assert len(set(alone)) == NUM_STEPS
  np.testing.assert_allclose(first[0] + first[1], alone, rtol=1e-5)
  assert not list(folders[1].iterdir())
  files = {path.name for path in folders[0].iterdir()}
  assert files == {"recipe.json", "training.msgpack"}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["fail=2", "die=2"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_host_that_ends_alone_ends_the_other(fault, which, tmp_path):
  words = [[str(tmp_path), str(NUM_STEPS), "none"] for _ in range(2)]
  words[which][-1] = fault
  codes, _, errors = _hosts("tests.reference.parallel_training", words)
  assert codes[which] == (9 if fault == "die=2" else 1)
  if fault == "fail=2":
    assert "error: OSError: the disk is gone" in errors[which]
  assert codes[1 - which] != 0


@pytest.mark.slow
def test_hosts_of_other_flags_or_another_workdir_are_refused(tmp_path):
  words = [[str(tmp_path), num_steps, "none"] for num_steps in "67"]
  codes, _, errors = _hosts("tests.reference.parallel_training", words)
  assert codes == [2, 2]
  assert all("different flags or data" in text for text in errors)
  assert not list(tmp_path.iterdir())
  parallel_training.train(tmp_path, 5, None)
  words = [[str(tmp_path), "6", "none"]] * 2
  codes, _, errors = _hosts("tests.reference.parallel_training", words)
  assert codes == [2, 1]
  assert "holds a training with num_steps=5, not 6" in errors[0]
  assert "another host failed" in errors[1]


@pytest.mark.slow
def test_binary_over_two_hosts_makes_the_student_of_one(tmp_path):
  flags = ["--smoke", f"--workdir={tmp_path / 'two'}"]
  codes, said, errors = _hosts("experiments.pretrain", [flags, flags])
  assert codes == [0, 0], errors
  assert "weights:" in said[0] and "weights:" not in said[1]
  alone = binaries.run("pretrain", "--smoke", f"--workdir={tmp_path / 'one'}")
  # The IoU of every class, to three digits.
  assert said[0].splitlines()[:-1][-8:] == alone.stdout.splitlines()[:-1][-8:]


def test_hosts_that_do_not_come_are_waited_for_in_vain(tmp_path):
  result = binaries.run(
    "pretrain",
    *("--coordinator=127.0.0.1:9", "--num_processes=2", "--process_id=1"),
    *("--join_seconds=1", f"--workdir={tmp_path}"),
  )
  assert result.returncode == 1
  assert "not all hosts joined --coordinator=127.0.0.1:9" in result.stderr
  assert result.stderr.count("\n") == 1

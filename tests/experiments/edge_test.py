"""The binaries of server and device, as a person starts them."""

import json
import re

import pytest

from tests import binaries
from tests.reference import edge_run


@pytest.mark.slow  # server, device and their students
def test_smoke_of_the_device_starts_a_server_too(tmp_path):
  path = tmp_path / "run"
  result = binaries.succeed("edge_client", "--smoke", f"--workdir={path}")
  words = r"done: 40 frames at [\d.]+ fps, (\d+) key frames, (\d+) updates"
  num_keys, num_updates = map(int, re.match(words, result.stdout).groups())
  assert num_keys > 1 and num_updates > 0
  assert re.search(r"\d+ Kbps up, \d+ Kbps down", result.stdout)
  summary = json.loads((path / "summary.json").read_text())
  assert summary["finished"] and summary["num_updates"] == num_updates
  assert summary["bytes_down"] > 100_000 > summary["bytes_up"] > 1000
  config = json.loads((path / "config.json").read_text())
  assert config["codec"] == "jpeg" and config["flags"]["height"] == 64
  again = binaries.run("edge_client", "--smoke", f"--workdir={path}")
  assert again.returncode == 2 and "holds a run already" in again.stderr


@pytest.mark.usefixtures("small_students")
def test_device_of_another_network_ends_in_a_line(tmp_path):
  with edge_run.place() as there:
    result = binaries.run(
      "edge_client",
      *(f"--server={there.url}", f"--workdir={tmp_path / 'run'}"),
      *("--height=32", "--width=40", "--classes=person", "--realtime"),
      *("--init=random", "--model=jitnet:width=0.1"),
      "--stream=synthetic:sports?num_frames=1000",
    )
  assert result.returncode == 1
  assert "Traceback" not in result.stderr
  last = result.stderr.splitlines()[-1]
  assert last.startswith("error: the server refuses: another network")

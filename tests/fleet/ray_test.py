"""On a real Ray: whatever is lost, streams end as if nothing had been."""

import json
import subprocess
import sys

import pytest

from ojd.errors import UserError
from ojd.fleet import folder, ray_runner
from ojd.fleet import ray as cluster
from ojd.run import workdir
from tests import ray_fleet
from tests.reference import small_run


def _start(path, *wanted):
  """What `tests.ray_fleet` prints, in a process of its own."""
  ended = subprocess.run(
    [sys.executable, "-m", "tests.ray_fleet", str(path), *wanted],
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  assert ended.returncode == 0, ended.stderr[-2000:]
  return ended.stdout


def _run(path, *wanted):
  lines = _start(path, *wanted).splitlines()
  (line,) = [x for x in lines if x.startswith("{")]
  return json.loads(line)


def _check_whole(path, found, num_frames=ray_fleet.NUM_FRAMES):
  """Every stream has a line for each frame, once."""
  assert found["summary"]["states"] == {"done": 3, "stopped": 0, "dead": 0}
  for entry in ray_fleet.entries(3):
    lines = small_run.lines(path / folder.STREAMS / entry.name)
    assert [line["t"] for line in lines] == list(range(num_frames))


def _check_undisturbed(path, alone):
  """A stream is as it is alone."""
  there = path / folder.STREAMS / "s0"
  assert small_run.lines(there) == small_run.lines(alone / "s0")
  for key in ("miou", "num_updates", "num_key_frames", "teacher_failures"):
    read = workdir.read_summary
    assert read(there)[key] == read(alone / "s0")[key]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """One of the streams, run by itself and undisturbed.

  In another process: with more devices than cores, sums are rounded otherwise.
  """
  path = tmp_path_factory.mktemp("alone")
  _start(path, "alone")
  return path


def test_killed_actors_are_replaced_and_nothing_is_lost(tmp_path, alone):
  found = _run(tmp_path / "site", "replica", "worker")
  assert found.get("worker") and found.get("replica"), "nobody was killed"
  # Also what an actor says after it was last asked.
  for words in ("s0: resuming at frame", "s0: done", "s1: done"):
    assert any(words in news for news in found["news"]), words
  _check_whole(tmp_path / "site", found)
  _check_undisturbed(tmp_path / "site", alone)


@pytest.mark.slow
def test_a_node_that_comes_takes_streams(tmp_path):
  found = _run(tmp_path / "site", "join")
  assert "a node has joined: 1 streams go there" in found["news"]
  assert any("resuming at frame" in words for words in found["news"])
  _check_whole(tmp_path / "site", found, ray_fleet.MANY_FRAMES)


@pytest.mark.slow
def test_streams_of_a_node_that_leaves_go_on_elsewhere(tmp_path, alone):
  found = _run(tmp_path / "site", "leave")
  _check_whole(tmp_path / "site", found)
  _check_undisturbed(tmp_path / "site", alone)


def test_a_local_cluster_is_for_this_machine_and_this_user(tmp_path):
  found = _run(tmp_path, "local")
  hosts = {x.removeprefix("::ffff:") for x in found["listening"]}
  assert hosts and hosts <= {"127.0.0.1", "::1"}
  own, *strangers = found["answers"]
  assert own[0] == 0, own[1]
  for code, words in strangers:
    assert code and "InvalidAuthToken" in words


def test_streams_are_dealt_evenly_and_moved_sparingly():
  names = ["a", "b", "c", "d", "e"]
  assert ray_runner.deal(names, 2) == [["a", "c", "e"], ["b", "d"]]
  assert ray_runner.deal(names[:1], 4) == [["a"]]
  assert ray_runner.give_up([4], 2) == [2]
  assert ray_runner.give_up([2, 1], 1) == [1, 0]
  assert ray_runner.give_up([5, 5], 3) == [2, 1]
  # The last stream is not taken from where it is.
  assert ray_runner.give_up([1, 2], 4) == [0, 1]


@pytest.mark.parametrize(
  ("address", "program", "words"),
  [
    ("127.0.0.1:1", None, "Connection refused"),
    ("nowhere", None, "auto, local or HOST:PORT"),
    # Not Ray itself: clusters of others may run on this machine.
    ("auto", "raise ConnectionError('None. Start one.')", "None"),
    ("auto", "import time; time.sleep(60)", "answers within 0.5 s"),
  ],
)
def test_an_address_without_a_cluster_is_one_line(
  monkeypatch, address, program, words
):
  if program:
    monkeypatch.setattr(cluster, "_TRY", program)
    patience = 0.5 if "sleep" in program else 30.0
    monkeypatch.setattr(cluster, "_ANSWER_SECONDS", patience)
  with pytest.raises(UserError) as refusal:
    cluster.connect(address)
  line = str(refusal.value)
  assert line.startswith(f"--ray={address}: ") and words in line
  assert "\n" not in line and "Start one" not in line


def test_what_ray_lacks_is_named(monkeypatch):
  import ray

  nodes = [
    {"Alive": True, "Resources": {"CPU": 4.0}},
    {"Alive": False, "Resources": {"GPU": 8.0}},
  ]
  monkeypatch.setattr(ray, "nodes", lambda: nodes)
  cluster.check_gpus(0.0, "replica_gpus")
  with pytest.raises(UserError, match="--replica_gpus=0.5: .* have none"):
    cluster.check_gpus(0.5, "replica_gpus")
  nodes.append({"Alive": True, "Resources": {"GPU": 1.0}})
  cluster.check_gpus(0.5, "replica_gpus")
  with pytest.raises(UserError, match="at most 1"):
    cluster.check_gpus(2.0, "replica_gpus")
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(UserError, match="--ray needs the package ray"):
    cluster.connect("auto")

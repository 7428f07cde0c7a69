"""Curves for other programs, read back; and trackers that fail."""

import errno
import importlib.util
import json
import os
import struct
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from ojd.errors import UserError
from ojd.run import config as config_lib
from ojd.run import trackers, workdir
from tests import binaries

KEY = {
  **{"t": 8, "is_key": True, "key_t": 3, "num_updates": 2, "stride": 16},
  **{"miou_before": 0.25, "miou_after": 0.75, "loss": 0.5, "grad_norm": None},
  **{"ms_learn": 12.5, "miou": 0.5},
}
OTHER = {
  **{"t": 9, "is_key": False, "num_updates": 0, "stride": 16},
  **{"eval_miou": 0.125, "ms_predict": 3.5, "miou": 0.5},
}


def _curves(folder):
  """{tag: [(step, value)]} as TensorBoard shows it."""
  from tensorboardX.proto import event_pb2

  curves = {}
  for path in sorted(folder.iterdir(), key=lambda x: int(x.suffix[1:])):
    content = path.read_bytes()
    while content:  # a TFRecord
      (length,) = struct.unpack("<Q", content[:8])
      assert len(content) >= 16 + length
      event = event_pb2.Event.FromString(content[12 : 12 + length])
      content = content[16 + length :]
      if event.HasField("session_log"):  # readers drop what is later
        assert event.session_log.status == event_pb2.SessionLog.START
        curves = {
          tag: [x for x in curve if x[0] < event.step]
          for tag, curve in curves.items()
        }
      for value in event.summary.value:
        point = event.step, value.simple_value
        curves.setdefault(value.tag, []).append(point)
  return curves


def test_tensorboard_shows_each_frame_once_though_resumed(tmp_path):
  pytest.importorskip("tensorboardX")
  folder = tmp_path / workdir.TENSORBOARD
  first = trackers.TensorBoard(folder)
  for t in range(7):
    first.write({"t": t, "is_key": False, "eval_miou": t / 8})
  first.write(KEY | {"t": 7})
  # Killed: what it wrote is there, though nobody closed it.
  second = trackers.TensorBoard(folder, start=4)
  for t in range(4, 8):
    second.write({"t": t, "is_key": False, "eval_miou": t / 16})
  second.close()
  curves = _curves(folder)
  mious = [(t, t / (8 if t < 4 else 16)) for t in range(8)]
  assert curves.pop("eval_miou") == mious
  assert curves == {tag: [] for tag in trackers.scalars(KEY)}
  first.close()


def test_key_frames_reach_tensorboard_where_it_can_open(tmp_path):
  pytest.importorskip("tensorboardX")
  flags = {"tensorboard": True, "wandb": False}
  curves, problems = trackers.open_trackers(tmp_path, flags)
  assert problems == []
  assert curves.write(KEY) == curves.write(OTHER) == curves.close() == ""
  found = _curves(tmp_path / workdir.TENSORBOARD)
  of_key = ("num_updates", "stride", "miou_before", "miou_after", "loss")
  assert found == {
    **{name: [(8, KEY[name])] for name in (*of_key, "ms_learn")},
    **{"miou": [(8, 0.5), (9, 0.5)], "eval_miou": [(9, 0.125)]},
    "ms_predict": [(9, 3.5)],
  }
  (tmp_path / "x").mkdir()
  (tmp_path / "x" / workdir.TENSORBOARD).write_text("in the way")
  curves, (problem,) = trackers.open_trackers(tmp_path / "x", flags)
  assert problem.startswith("--tensorboard is switched off: ")
  assert curves.write(KEY) == curves.close() == ""


class _Tracker:
  """Fails on its `bad`-th line; waits there for a gate, if there is one."""

  def __init__(self, bad=None, gate=None, bad_end=False):
    self.lines, self.num_closed = [], 0
    self.bad, self.gate, self.bad_end = bad, gate, bad_end

  def write(self, line):
    if line["t"] == self.bad:
      if self.gate is not None:
        self.gate.wait()
      raise OSError(errno.ENOSPC, "No space\nleft on device")
    self.lines.append(line)

  def close(self):
    self.num_closed += 1
    if self.bad_end:
      raise ConnectionError("nobody there")


def _write_all(tracker, num_lines=1000, pause=0.0):
  problems = []
  for t in range(num_lines):
    problems.append(tracker.write({"t": t}))
    time.sleep(pause)
  problems.append(tracker.close())
  return [x for x in problems if x]


@pytest.mark.parametrize("bad", [None, 5])
@pytest.mark.parametrize("num_lines", [6, 1000])
def test_tracker_that_fails_is_reported_once_and_left_alone(num_lines, bad):
  one, good = _Tracker(bad=bad), _Tracker()
  both = trackers.Trackers(
    (trackers.Guarded("wandb", one), trackers.Guarded("tensorboard", good))
  )
  problems = _write_all(both, num_lines, pause=0.0005 if bad else 0.0)
  words = "OSError: [Errno 28] No space left on device"
  assert problems == [f"--wandb is switched off: {words}"] * bool(bad)
  # Every line arrives, and the end is waited for.
  for fake, num_seen in ((one, bad or num_lines), (good, num_lines)):
    assert [x["t"] for x in fake.lines] == list(range(num_seen))
    assert fake.num_closed == 1


def test_tracker_that_cannot_close_is_reported():
  (problem,) = _write_all(trackers.Guarded("wandb", _Tracker(bad_end=True)), 3)
  assert problem == "--wandb is switched off: ConnectionError: nobody there"


@pytest.mark.parametrize(
  "bad,num_lines,limit,words",
  [
    (0, 2000, {"timeout": 0.2}, "has hung for 0.2 s"),
    (2, 3, {"close_timeout": 0.2}, "does not end within 0.2 s"),
  ],
)
def test_tracker_that_hangs_holds_the_stream_up_but_once(
  bad, num_lines, limit, words
):
  gate = threading.Event()
  guarded = trackers.Guarded("wandb", _Tracker(bad=bad, gate=gate), **limit)
  start = time.monotonic()
  (problem,) = _write_all(guarded, num_lines)
  assert words in problem
  assert 0.2 <= time.monotonic() - start < 5
  gate.set()


@pytest.mark.parametrize("name", trackers.PACKAGES)
def test_missing_package_is_a_bad_request(name, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  config = config_lib.RunConfig(workdir="x", **{name: True})
  with pytest.raises(UserError) as error:
    config_lib.check(config)
  needs = f"--{name} needs the package {trackers.PACKAGES[name]}"
  assert str(error.value) == f"{needs}: pip install 'ojd[{name}]'"


def _offline(path, code, **environment):
  """Runs lines in a process of its own, where nobody is logged in."""
  kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
  home = {"HOME": str(path), "NETRC": str(path / "netrc")}
  home |= {"WANDB_CONFIG_DIR": str(path), "WANDB_ERROR_REPORTING": "false"}
  return subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code)],
    env=kept | home | environment,
    cwd=binaries.ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )


def test_wandb_without_a_login_is_a_bad_request(tmp_path):
  pytest.importorskip("wandb")
  code = "from ojd.run import trackers; trackers.require('wandb')"
  result = _offline(tmp_path, code)
  assert "UserError: --wandb: you are not logged in" in result.stderr
  result = _offline(tmp_path, code, WANDB_MODE="offline")
  assert result.returncode == 0, result.stderr


_WANDB_RUN = """
  import json, pathlib
  from ojd.run import trackers
  path = pathlib.Path({path!r})
  flags = {{"tensorboard": False, "wandb": True, "seed": 3}}
  curves, problems = trackers.open_trackers(path, flags, {start})
  assert problems == [], problems
  with (path / "metrics.jsonl").open("a") as file:
    for t in range({start}, {end}):
      line = {{"t": t, "is_key": False, "eval_miou": t / 8}}
      assert curves.write(line) == ""
      file.write(json.dumps(line) + "\\n")
  assert curves.close() == ""
"""


def _history(path):
  """Rows of an offline run: a log in LevelDB's format, of one block."""
  from wandb.proto import wandb_internal_pb2

  content, rows = path.read_bytes(), []
  assert content[:4] == b":W&B" and len(content) < 1 << 15
  content = content[7:]
  while content:
    _, length, kind = struct.unpack("<IHB", content[:7])
    assert kind == 1  # whole
    record = wandb_internal_pb2.Record()
    record.ParseFromString(content[7 : 7 + length])
    content = content[7 + length :]
    if record.WhichOneof("record_type") == "history":
      row = {}
      for item in record.history.item:
        name = item.key or ".".join(item.nested_key)
        row[name] = json.loads(item.value_json)
      rows.append(row)
  return rows


def test_wandb_has_each_frame_once_in_one_run(tmp_path):
  pytest.importorskip("wandb")
  path = tmp_path / "run"
  path.mkdir()
  for start, end in ((0, 6), (4, 9)):  # killed after 5, resumed at 4
    code = _WANDB_RUN.format(path=str(path), start=start, end=end)
    result = _offline(tmp_path, code, WANDB_MODE="offline")
    assert result.returncode == 0, result.stderr
    time.sleep(1.1)  # its folders are named by the second
  files = sorted(path.glob("wandb/offline-run-*/*.wandb"))
  assert len(files) == 2
  assert len({file.name for file in files}) == 1  # of the same run
  rows = [row for file in files for row in _history(file)]
  assert [(row["_step"], row["eval_miou"]) for row in rows] == [
    (t, t / 8) for t in range(9)
  ]

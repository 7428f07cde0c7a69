"""Runs over a simulated network: times by hand, resumed, replayed."""

import itertools

import numpy as np
import pytest

from experiments.benchmarks import edge as edge_entry
from ojd.compare import numbers
from ojd.errors import UserError
from ojd.models.pretrained import flatten
from ojd.network import conditions, messages, simulation, weights
from ojd.network.messages import Update
from ojd.run import fork, network_source, recorded_run, replay, workdir
from ojd.run.executor import Executor
from ojd.run.sources import InStep
from tests.reference import small_run
from tests.reference.refusals import refused

AMS = {
  "system": "ams:sampling_rate=5:train_period=0.5:iterations=2:batch_size=2"
}
FPS = 25.0  # of the synthetic scenes

pytestmark = pytest.mark.usefixtures("small_students")


def _run(path, **flags):
  """Rows of the metrics, those of key frames, and what the link carried."""
  link = small_run.run(path, **flags).summary.get("link")
  rows = small_run.lines(path)
  return rows, [row for row in rows if row["is_key"]], link


@pytest.fixture
def sent(monkeypatch):
  """What a run puts on the line, and its weights at first and at last."""
  lines, ends = [], []
  encode, source = messages.encode, network_source.SimulatedNetwork
  begin, end = source.begin, source.summary

  def note_line(message, *args):
    lines.append(encode(message, *args))
    return lines[-1]

  def note_first(self, context):
    begin(self, context)
    ends.append(self._sent)

  def note_last(self):
    ends.append(flatten(self.context.executor.state.staged))
    return end(self)

  monkeypatch.setattr(messages, "encode", note_line)
  monkeypatch.setattr(source, "begin", note_first)
  monkeypatch.setattr(source, "summary", note_last)
  return lines, ends


def test_over_the_ideal_network_is_what_it_is_without(tmp_path):
  given = {"system": "shadowtutor", "a_thresh": 0.5}
  near, _, _ = _run(tmp_path / "near", **given)
  far, _, link = _run(tmp_path / "far", **given, link="ideal")
  for one, other in zip(near, far, strict=True):
    if one["is_key"]:  # the device answers before it hears of it
      del one["eval_miou"], other["eval_miou"]
      assert other.pop("staleness") == 1 and other.pop("sent")
      assert min(other.pop("bytes_up"), other.pop("bytes_down")) > 0
    assert one == other
  assert link["max_staleness"] == 1


def test_times_are_those_by_hand(tmp_path):
  """One key frame after the other, each of which the server waits for."""
  text = "up_mbps=2,down_mbps=0.2,rtt_ms=20,teacher_ms=30,update_ms=10"
  _, keys, found = _run(tmp_path, system="jit", link=text, delta_min=8)
  until = {}  # frame -> the moment before which it cannot begin
  rows, waits, clock = {row["t"]: row for row in keys}, 0.0, 0.0
  for t in range(40):
    clock = max(clock, t / FPS)
    if t in until:
      waits += max(0.0, until[t] - clock)
      clock = max(clock, until[t])
    if t not in rows:
      continue
    row = rows[t]
    there = clock + 8 * row["bytes_up"] / 2e6 + 0.010 + 0.030
    there += 0.010 * row["num_updates"]
    there += 8 * row["bytes_down"] / 0.2e6 + 0.010
    frame = max(t + 1, int(np.ceil(there * FPS - 1e-9)))
    if frame > t + 8:
      frame = t + 8
      until[frame] = there
    assert row["staleness"] == frame - t
  assert len(keys) > 2 and {row["staleness"] for row in keys} != {1}
  assert found["waited_seconds"] == pytest.approx(waits, abs=2e-3)
  assert found["up_bytes"] == sum(row["bytes_up"] for row in keys)
  kbps = 8e-3 * sum(row["bytes_down"] for row in keys) / found["seconds"]
  assert found["down_kbps"] == pytest.approx(kbps, rel=1e-3)
  summed = numbers.read(tmp_path)
  assert summed.num_updates == sum(row["num_updates"] for row in keys)
  assert summed.down_kbps == found["down_kbps"]
  assert summed.link_fps == found["fps"]
  assert found["num_sent"] == len(keys)
  page = (tmp_path / workdir.REPORT / "index.html").read_text()
  assert f"{found['down_kbps']:.0f}" in page
  assert "frames until what was learned answers" in page


def test_messages_are_timed_over_another_network(tmp_path):
  """What the benchmark does for methods that wait."""
  given = {"system": "jit", "delta_min": 8}
  text = "up_mbps=2,down_mbps=0.02,rtt_ms=20,teacher_ms=30,device_ms=50"
  text += ",loss=0.1"
  rows, _, _ = _run(tmp_path / "ideal", **given, link="ideal")
  _, _, expected = _run(tmp_path / "slow", **given, link=text)
  there = conditions.parse(text)
  rules = simulation.Rules(FPS, there.pace, 8)
  found = edge_entry.retimed(rows, there.link, rules, small_run.CONFIG.seed)
  assert found == expected
  assert found["waited_seconds"] > 0


@pytest.mark.parametrize("flags", [{}, AMS], ids=["jit", "ams"])
def test_device_holds_what_its_messages_made(flags, tmp_path, sent):
  """One update on its way at most, and those that wait take them in order."""
  lines, ends = sent
  text = "down_mbps=0.02,rtt_ms=100,update_ms=20"
  _, keys, link = _run(tmp_path, link=text, **flags)
  updates = [messages.decode(line) for line in lines]
  updates = [m for m in updates if isinstance(m, Update)]
  keys = [row for row in keys if "staleness" in row]
  assert len(updates) == len(keys) >= 2
  for row, after in itertools.pairwise(keys):
    assert row["t"] + row["staleness"] <= after["t"]
  held, last = ends
  for update in updates:
    held = weights.apply(held, update)
  for name, array in last.items():
    np.testing.assert_array_equal(held.params[name], array)
  dtypes = {m.payload.dtype for m in updates if m.payload.num_chosen}
  assert dtypes == {"float16" if flags else "float32"}
  is_late = max(row["staleness"] for row in keys) > 4  # delta_min
  assert is_late == bool(flags) and (flags or link["waited_seconds"] > 0)


@pytest.mark.parametrize(
  ("flags", "link"),
  [
    ({"system": "shadowtutor"}, "codec=jpeg,quality=50,down_mbps=0.5"),
    (AMS, "down_mbps=0.02,rtt_ms=50,loss=0.1,outage=0.3-0.4,kbps=8"),
  ],
  ids=["shadowtutor", "ams"],
)
def test_interrupted_and_replayed(flags, link, tmp_path):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  given = flags | {"link": link, "checkpoint_every": 2}
  rows, keys, carried = _run(whole, **given)
  assert not small_run.run(parts, stop=23, **given).summary["finished"]
  again = small_run.run(parts, **given).summary
  assert again["finished"] and again["resumed"] == 1
  assert small_run.lines(parts) == rows and again["link"] == carried
  run = recorded_run.read(whole)
  replayed = replay.replay(run)
  assert replayed.is_equal and replayed.num_keys == len(keys)
  from_there = replay.replay(run, 30)
  assert from_there.is_equal and from_there.start.is_checkpoint
  assert from_there.num_keys > 0
  with pytest.raises(UserError, match="with --link cannot be forked"):
    fork.child_config(run.config, {"workdir": "b"})


def test_frames_are_what_arrives(tmp_path, monkeypatch):
  """The student learns from the JPEG; the teacher may look at the original."""
  asked, learnt = [], []
  ask, learn = InStep.ask, Executor.learn

  note_ask = lambda *args: asked.append(args[1].frame) or ask(*args)
  note_learn = lambda *args: learnt.append(args[1]) or learn(*args)
  monkeypatch.setattr(InStep, "ask", note_ask)
  monkeypatch.setattr(Executor, "learn", note_learn)
  for labels in ("decoded", "original"):
    text = f"codec=jpeg,quality=20,labels={labels}"
    small_run.run(tmp_path / labels, link=text, num_frames=2)
    one, other = asked.pop(), learnt.pop()
    assert not asked and not learnt
    assert np.array_equal(one, other) == (labels == "decoded")
    difference = one.astype(int) - other
    assert labels == "decoded" or 0.5 < np.abs(difference).mean() < 20


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ({"system": "flow"}, "--system=flow has no student to send"),
    ({"system": "jit:norm=key_frame"}, "needs norm=frame"),
    ({"async_teacher": True}, "drop --async_teacher"),
    ({"link": "codec=h264"}, "sends single frames"),
    ({"link": "speed=3"}, "unknown; known are up_mbps"),
  ],
)
def test_what_cannot_be_is_refused(flags, words):
  with refused(words):
    small_run.config("x", **{"link": "ideal"} | flags)

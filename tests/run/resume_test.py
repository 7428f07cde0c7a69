"""A run stopped or killed at any moment and resumed equals one that was not."""

import json
import random
import shutil
import signal
import subprocess
import time

import av
import jax
import numpy as np
import pytest

from ojd.run import checkpoint as checkpoint_lib
from ojd.run import loop, runner, trajectory, workdir
from tests import binaries
from tests.reference import loop_run, scenes, small_run
from tests.reference.loop_run import NUM_FRAMES as LOOP_FRAMES

ASLEEP = range(3, 14)  # frames about which the teacher says nothing


def _loop(path, *, every, frames=None, has_truth=True, is_late=False):
  """A loop on coloured squares; stops before its `frames`-th frame of now."""
  path.mkdir(exist_ok=True)
  stream = scenes.Stream(LOOP_FRAMES, has_truth, broken=(5, 6))
  teacher = loop_run.Teacher(stream, dict.fromkeys(ASLEEP, 99))
  flags = {"save_masks": "png", "checkpoint_every": every}
  job = loop_run.job(path, stream, teacher, async_teacher=is_late, **flags)
  checkpointer = checkpoint_lib.Checkpointer(
    path, checkpoint_lib.abstract(job), {"name": "test"}
  )
  start, problems = checkpointer.latest()
  log = trajectory.TrajectoryWriter(
    path / workdir.TRAJECTORY,
    {"name": "test"},
    start=start.t if start else 0,
    is_repeatable=not is_late,
  )
  seen = []
  made = loop.Loop(
    *(job, path, runner.make_source(job)),
    should_stop=lambda: frames is not None and len(seen) >= frames,
    progress_fn=seen.append,
    executor=loop_run.executor(),
    checkpointer=checkpointer,
    start=start,
    trajectory_writer=log,
  )
  return made, problems


def _outcome(path, summary):
  lines, counts = small_run.lines(path), small_run.counts(summary)
  masks = {p.name: p.read_bytes() for p in (path / workdir.MASKS).glob("*.png")}
  log = (path / workdir.TRAJECTORY / trajectory.LOG).read_bytes()
  return lines, counts, masks, log


@pytest.fixture(scope="module", params=[True, False])
def whole(request, tmp_path_factory):
  path = tmp_path_factory.mktemp("runs") / "whole"
  made, _ = _loop(path, every=1, has_truth=request.param)
  summary = made.run()
  return request.param, _outcome(path, summary), made.executor.state


@pytest.mark.parametrize("frames", [0, 1, 6, 7, 14, 31])
@pytest.mark.parametrize("every", [1, 3])
def test_a_stopped_and_resumed_loop_is_the_same(tmp_path, whole, frames, every):
  has_truth, outcome, state = whole
  path = tmp_path / "run"
  _loop(path, every=every, frames=frames, has_truth=has_truth)[0].run()
  made, problems = _loop(path, every=every, has_truth=has_truth)
  assert problems == [] and made.next_t == min(frames, LOOP_FRAMES)
  summary = made.run()
  assert _outcome(path, summary) == outcome
  assert summary["resumed"] == 1
  jax.tree.map(np.testing.assert_array_equal, made.executor.state, state)


def _as_killed(path, after):
  """Takes back the last checkpoints, as if they had not been written yet."""
  folder = path / workdir.CHECKPOINTS
  for step in sorted(int(p.name) for p in folder.iterdir())[after:]:
    shutil.rmtree(folder / str(step))


def test_what_came_after_the_checkpoint_is_done_again(tmp_path, whole):
  has_truth, outcome, _ = whole
  path = tmp_path / "run"
  _loop(path, every=1, frames=20, has_truth=has_truth)[0].run()
  _as_killed(path, -2)
  with (path / workdir.METRICS).open("a") as file:
    file.write('{"t": 20, "torn')
  log = trajectory.Trajectory(path / workdir.TRAJECTORY)
  made, problems = _loop(path, every=1, has_truth=has_truth)
  assert problems == [] and made.next_t < 20
  again = [t for t, _ in log.records if t >= made.next_t]
  assert _outcome(path, made.run()) == outcome
  # What the teacher said is not asked for again.
  assert again and not set(again) & set(made.job.teacher.calls)


def test_another_course_is_reported_and_replaces_the_old_one(tmp_path):
  path = tmp_path / "run"
  _loop(path, every=1, frames=20)[0].run()
  _as_killed(path, -2)
  made, _ = _loop(path, every=1)
  # As another machine's arithmetic would: the state is not the one kept.
  state = made._start.state
  params = jax.tree.map(lambda x: x * 1.01, state.params)
  made._start = made._start._replace(state=state._replace(params=params))
  summary, _, problems = loop_run.run(made, path)
  assert summary["finished"]
  assert len([x for x in problems if "differs" in x]) == 1
  log = trajectory.Trajectory(path / workdir.TRAJECTORY)
  times = [t for t, _ in log.records]
  assert times == sorted(times) and log.problem == ""


def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, whole):
  has_truth, outcome, _ = whole
  path = tmp_path / "run"
  _loop(path, every=1, frames=20, has_truth=has_truth)[0].run()
  folder = path / workdir.CHECKPOINTS
  last = max(int(p.name) for p in folder.iterdir())
  for file in (folder / str(last)).rglob("*"):
    if file.is_file():
      file.write_bytes(file.read_bytes()[:-3])
  made, problems = _loop(path, every=1, has_truth=has_truth)
  assert len(problems) == 1 and "damaged" in problems[0]
  assert 0 < made.next_t < last
  assert _outcome(path, made.run()) == outcome


def test_late_answers_are_not_waited_for_by_a_checkpoint(tmp_path):
  path = tmp_path / "run"
  _loop(path, every=1, frames=17, is_late=True)[0].run()
  made, problems = _loop(path, every=1, is_late=True)
  summary = made.run()
  assert problems == [] and summary["finished"]
  assert summary["num_frames"] == LOOP_FRAMES - 2
  assert summary["num_key_frames"] > 0


# Processes that are killed.

NUM_FRAMES = 60
FLAGS = (
  *(f"--stream=synthetic:street?num_frames={NUM_FRAMES}", "--classes=person"),
  *("--teacher=ground_truth", "--init=random", "--model=jitnet:width=0.1"),
  *("--height=48", "--width=64", "--checkpoint_every=1"),
  *("--save_masks", "--boxes", "--areas"),
)


def _story(path):
  """All that must be equal: lines, summary, last checkpoint, files."""
  summary = json.loads((path / workdir.SUMMARY).read_text())
  folder = path / workdir.CHECKPOINTS
  last = max(int(x.name) for x in folder.iterdir() if x.name.isdecimal())
  (meta,) = (folder / str(last) / "meta").rglob("metadata")
  content = json.loads(meta.read_text())
  files = [path / name for name in (workdir.BOXES, workdir.AREAS)]
  files += [path / workdir.TRAJECTORY / trajectory.LOG, path / workdir.BOX_LIST]
  files += sorted((path / workdir.MASKS).glob("*.png"))
  return (
    *(small_run.lines(path), small_run.counts(summary)),
    *(last, content["digest"]),
    {file.name: file.read_bytes() for file in files},
  )


def _kill_after(path, flags, num_lines, rng):
  """Kills the run a moment after so many new lines; says if it was alive."""
  process = binaries.start(
    "online_distill",
    *flags,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  deadline = time.monotonic() + 120
  seen = -1
  while process.poll() is None and time.monotonic() < deadline:
    now = binaries.num_lines(path / workdir.METRICS)
    if seen < 0 or now < seen:  # it cut off what it does again
      seen = now
    if now >= seen + num_lines:
      break
    time.sleep(0.001)
  time.sleep(rng.random() * 0.05)
  process.send_signal(signal.SIGKILL)
  return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
  "num_kills",
  [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (20, 100))],
)
def test_kills_leave_no_trace(tmp_path, monkeypatch, num_kills):
  """As compiled for users: all other tests compile with fewer passes."""
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  rng = random.Random(0)
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  parts.mkdir()
  num_killed = 0
  for _ in range(num_kills):
    num_lines = rng.randint(0, 2 * NUM_FRAMES // (num_kills + 1))
    flags = (*FLAGS, f"--workdir={parts}")
    num_killed += _kill_after(parts, flags, num_lines, rng)
  assert num_killed > num_kills // 2
  for path in (whole, parts):
    binaries.succeed("online_distill", *FLAGS, f"--workdir={path}")
  assert _story(parts) == _story(whole)
  replayed = binaries.succeed("replay", f"--workdir={parts}")
  assert "bit-equal" in replayed.stdout
  with av.open(parts / workdir.OVERLAY) as video:
    assert sum(1 for _ in video.decode(video=0)) == NUM_FRAMES
  assert not (parts / workdir.OVERLAY_PARTS).exists()

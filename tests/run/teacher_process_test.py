"""Runs whose teacher has a process of its own, and loses it."""

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from ojd import labels, systems, updates
from ojd.errors import UserError
from ojd.run import build, loop, sources, workdir
from ojd.run.config import RunConfig
from ojd.run.executor import Executor
from ojd.teachers import base, process
from tests import binaries
from tests.reference import odd_teachers as odd
from tests.reference import scenes, tiny_student

MODULE = "tests.reference.odd_teachers"
GROUPS = labels.parse_groups("", odd.NAMES)
STRIDE = 4
SYSTEM = systems.fixed(
  tiny_student.make(), updates.sgd(learning_rate=0.3), stride=STRIDE, u_max=4
)


@functools.cache
def _executor():
  return Executor(SYSTEM, 16, 20, seed=0)


def _run(path, stream, teacher, progress_fn=lambda progress: None):
  path.mkdir(exist_ok=True)
  config = RunConfig(workdir=str(path), overlay=False)
  job = build.Job(config, stream, teacher, GROUPS, GROUPS, SYSTEM)
  summary = loop.Loop(
    *(job, path, sources.InStep()),
    executor=_executor(),
    progress_fn=progress_fn,
  ).run()
  text = (path / workdir.METRICS).read_text()
  return summary, [json.loads(line) for line in text.splitlines()]


def _request(stream):
  spec = stream.spec
  size = spec.height, spec.width
  return base.Context(spec.class_names, *size, spec.identity)


def _worker(stream, text, timeout=60.0):
  return process.InProcess(text, _request(stream), timeout=timeout)


def _without_times(lines):
  return [
    {k: v for k, v in line.items() if not k.startswith("ms_")} for line in lines
  ]


@pytest.mark.parametrize("text", ["ground_truth", f"{MODULE}:Colours"])
def test_the_run_is_the_same(tmp_path, text):
  stream = scenes.Stream()
  here = base.make_teacher(text, _request(stream))
  _, expected = _run(tmp_path / "here", stream, here)
  summary, lines = _run(tmp_path / "there", stream, _worker(stream, text))
  assert _without_times(lines) == _without_times(expected)
  assert sum(line["is_key"] for line in lines) == len(range(0, 30, STRIDE))
  assert all("ms_teacher" in line for line in lines if line["is_key"])
  assert summary["finished"] and "mean_delay_frames" not in summary


class _Watcher:
  """Notes problems; on frame 18 it waits until the worker is back."""

  def __init__(self, worker, kill_at=None):
    self.worker, self.kill_at, self.problems = worker, kill_at, []

  def __call__(self, progress):
    if progress.problem:
      self.problems.append(progress.problem)
    if progress.num_frames == self.kill_at and self.worker.pid:
      pid, self.kill_at = self.worker.pid, None
      os.kill(pid, signal.SIGKILL)
      os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    deadline = time.monotonic() + 30
    while progress.num_frames == 18 and not self.worker.is_ready:
      self.worker.poll()
      assert time.monotonic() < deadline
      time.sleep(0.005)


def test_worker_killed_between_questions_comes_back(tmp_path, monkeypatch):
  monkeypatch.setattr(process, "FIRST_PAUSE", 0.05)
  stream = scenes.Stream()
  worker = _worker(stream, f"{MODULE}:Colours")
  watcher = _Watcher(worker, kill_at=6)
  summary, lines = _run(tmp_path, stream, worker, watcher)
  assert summary["finished"] and len(lines) == 30
  assert "was ended by SIGKILL" in watcher.problems[0]
  # What was asked before it was back counts as failed, and nothing else.
  assert summary["teacher_failures"] == len(watcher.problems) - 1
  keys = [line["t"] for line in lines if line["is_key"]]
  assert keys[:2] == [0, 4] and keys[-3:] == [20, 24, 28]
  assert len(keys) + summary["teacher_failures"] == 8


@pytest.mark.parametrize(
  ("what", "words"),
  [(odd.DIE, "ended with code 7"), (odd.HANG, "no answer within 0.5 s")],
)
def test_worker_lost_amid_a_question_comes_back(
  tmp_path, monkeypatch, what, words
):
  monkeypatch.setattr(process, "FIRST_PAUSE", 0.05)
  stream = scenes.Stream()
  stream.frames[8, 0, 0] = what, 0, 0
  worker = _worker(stream, f"{MODULE}:Obedient", timeout=0.5)
  watcher = _Watcher(worker)
  summary, lines = _run(tmp_path, stream, worker, watcher)
  problems = watcher.problems
  assert problems[0].startswith("the teacher failed on frame 8: its process")
  assert words in problems[0]
  assert summary["teacher_failures"] == len(problems)
  assert lines[4]["is_key"] and not lines[8]["is_key"]
  assert lines[20]["is_key"] and lines[28]["is_key"] and summary["finished"]
  # Its time is not what an answer takes.
  assert "teacher_failed" in summary["seconds"]
  assert summary["seconds"]["teacher"] < 0.5


def test_wrong_answer_ends_the_run_and_the_worker(tmp_path):
  stream = scenes.Stream()
  stream.frames[8, 0, 0] = odd.WRONG, 0, 0
  worker = _worker(stream, f"{MODULE}:Obedient")
  with pytest.raises(UserError, match="its answer"):
    _run(tmp_path, stream, worker)
  assert worker.pid is None


def test_job_ends_its_worker():
  config = RunConfig(
    stream="synthetic:street",
    teacher="ground_truth",
    init="random",
    height=48,
    width=64,
    teacher_process=True,
  )
  job = build.make_job(config)
  assert isinstance(job.teacher, process.InProcess) and job.teacher.pid
  job.close()
  assert job.teacher.pid is None


def test_job_that_cannot_be_made_ends_its_worker(monkeypatch):
  made, close = [], process.InProcess.close
  monkeypatch.setattr(
    process.InProcess, "close", lambda self: made.append(self) or close(self)
  )
  config = RunConfig(
    stream="synthetic:street",
    teacher="ground_truth",
    classes="unicorn",
    teacher_process=True,
  )
  with pytest.raises(UserError, match="unicorn"):
    build.make_job(config)
  assert len(made) == 1 and made[0].pid is None


SMALL = (
  *("--stream=synthetic:street?num_frames=2000", "--height=48", "--width=64"),
  *(
    "--init=random",
    "--model=jitnet:width=0.1",
    "--nooverlay",
    "--teacher_process",
  ),
)


def test_bad_teacher_is_refused_in_a_line(tmp_path):
  path = f"--workdir={tmp_path / 'run'}"
  result = binaries.run("online_distill", path, *SMALL, "--teacher=a.b:c")
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert line.startswith("error: --teacher=a.b:c cannot be imported")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "flag",
  [
    "--async_teacher",
    pytest.param("--noasync_teacher", marks=pytest.mark.slow),
  ],
)
def test_interrupt_of_the_whole_group_leaves_a_summary(tmp_path, flag):
  path = tmp_path / "run"
  run = subprocess.Popen(
    [sys.executable, "-m", "experiments.online_distill", *SMALL, flag]
    + [f"--workdir={path}", "--teacher=ground_truth"],
    cwd=pathlib.Path(binaries.ROOT),
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  metrics, deadline = path / workdir.METRICS, time.monotonic() + 200
  while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
    assert run.poll() is None and time.monotonic() < deadline
    time.sleep(0.005)
  os.killpg(run.pid, signal.SIGINT)
  _, stderr = run.communicate(timeout=60)
  assert run.returncode == 128 + signal.SIGINT, stderr
  # Nothing died, and nothing was left lying about.
  assert all(
    line.startswith(("stopping", "frame ")) for line in stderr.splitlines()
  ), stderr
  summary = json.loads((path / workdir.SUMMARY).read_text())
  assert not summary["finished"] and summary["teacher_failures"] == 0

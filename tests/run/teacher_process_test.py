"""Runs whose teacher has a process of its own, and loses it."""

import functools
import os
import signal
import time

import pytest

from ojd import systems, updates
from ojd.errors import UserError
from ojd.run import build, loop, sources
from ojd.run.config import RunConfig
from ojd.run.executor import Executor
from ojd.teachers import base, process
from tests.reference import loop_run, scenes, small_run
from tests.reference import odd_teachers as odd

MODULE = "tests.reference.odd_teachers"
STRIDE = 4
SYSTEM = systems.fixed(
  loop_run.STUDENT, updates.sgd(learning_rate=0.3), stride=STRIDE, u_max=4
)


@functools.cache
def _executor():
  return Executor(SYSTEM, 16, 20, seed=0)


def _run(path, stream, teacher, progress_fn=lambda progress: None):
  path.mkdir(exist_ok=True)
  job = loop_run.job(path, stream, teacher, SYSTEM)
  summary = loop.Loop(
    *(job, path, sources.InStep()),
    executor=_executor(),
    progress_fn=progress_fn,
  ).run()
  return summary, small_run.lines(path)


def _request(stream):
  spec = stream.spec
  size = spec.height, spec.width
  return base.Context(spec.class_names, *size, spec.identity)


def _worker(stream, text, timeout=60.0):
  return process.InProcess(text, _request(stream), timeout=timeout)


@pytest.mark.parametrize("text", ["ground_truth", f"{MODULE}:Colours"])
def test_the_run_is_the_same(tmp_path, text):
  stream = scenes.Stream()
  here = base.make_teacher(text, _request(stream))
  _, expected = _run(tmp_path / "here", stream, here)
  summary, lines = _run(tmp_path / "there", stream, _worker(stream, text))
  assert lines == expected
  assert sum(line["is_key"] for line in lines) == len(range(0, 30, STRIDE))
  assert summary["ms"]["teacher"] > 0
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
  first = watcher.problems[0]
  assert first.startswith("the teacher failed on frame 8: its process")
  assert words in first
  assert summary["teacher_failures"] == len(watcher.problems)
  assert [lines[t]["is_key"] for t in (4, 8, 20, 28)] == [1, 0, 1, 1]
  assert summary["finished"]
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


def test_job_ends_its_worker(monkeypatch):
  """Also one that cannot be made."""
  made, init = [], process.InProcess.__init__
  note = lambda self, *args, **kw: made.append(self) or init(self, *args, **kw)
  monkeypatch.setattr(process.InProcess, "__init__", note)
  flags = {"stream": "synthetic:street", "teacher": "ground_truth"}
  flags |= {"init": "random", "height": 48, "width": 64}
  config = RunConfig(**flags, teacher_process=True)
  job = build.make_job(config)
  assert made == [job.teacher] and made[0].pid
  job.close()
  assert made[0].pid is None
  with pytest.raises(UserError, match="unicorn"):
    build.make_job(RunConfig(**vars(config) | {"classes": "unicorn"}))
  assert len(made) == 2 and made[1].pid is None

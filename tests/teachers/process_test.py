"""A teacher in its own process: the same answers, and every way to lose it."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from unittest import mock

import numpy as np
import pytest

from ojd import labels
from ojd.errors import UserError
from ojd.teachers import base, labelers, process
from ojd.types import Sample
from tests import binaries
from tests.reference import odd_teachers as odd
from tests.reference.refusals import refused
from tests.waiting import is_gone, until

REQUEST = base.Context(odd.NAMES, 16, 20, {})
OBEDIENT = "tests.reference.odd_teachers:Obedient"
GROUPS = labels.parse_groups("", odd.NAMES)


@pytest.fixture
def clock():
  """Stands still until its `now` is moved."""
  clock = mock.Mock(now=0.0)
  clock.side_effect = lambda: clock.now
  return clock


@pytest.fixture
def start():
  """Starts workers, and ends them after the test."""
  with contextlib.ExitStack() as stack:

    def start(text=OBEDIENT, timeout=60.0, **kwargs):
      worker = process.InProcess(text, REQUEST, timeout=timeout, **kwargs)
      stack.callback(worker.close)
      worker.set_groups(GROUPS)
      return worker

    yield start


def _sample(what=0, t=0):
  truth = np.random.default_rng(t).integers(0, 3, (16, 20)).astype(np.uint8)
  return Sample(t, odd.frame_that_says(what), truth)


def _ask(worker, what=0, is_patient=False):
  """Asks and waits, if it is patient for a restart as well."""
  worker.ask(_sample(what))
  if is_patient:
    return until(lambda: worker.answer(wait=False))
  return worker.answer(wait=True)


_ask_patiently = functools.partial(_ask, is_patient=True)


@pytest.mark.parametrize(
  ("text", "what"),
  [("ground_truth", 0), (OBEDIENT, 0), (OBEDIENT, odd.INSTANCES)],
)
def test_labels_are_those_of_this_process(start, text, what):
  worker, here = start(text), base.make_teacher(text, REQUEST)
  assert worker.class_names == here.class_names
  assert worker.is_free == here.is_free
  assert worker.answer(wait=False) is None and worker.answer(wait=True) is None
  answers = []
  for t in range(3):
    worker.ask(_sample(what, t))
    answers.append(until(lambda t=t: worker.answer(wait=t > 0)))
    assert worker.answer(wait=False) is None  # it was given once
  # Only now: an earlier answer must not be overwritten by a later one.
  for t, answer in enumerate(answers):
    expected = base.label(here, _sample(what, t), GROUPS)
    assert answer.sample.t == t and answer.problem == ""
    assert 0 < answer.seconds < 10
    for got, want in zip(answer.labels, expected, strict=True):
      np.testing.assert_array_equal(got, want)
      assert got.dtype == want.dtype


def test_worker_without_jax_and_torch_outlives_what_its_teacher_raises(start):
  worker = start()
  pid = worker.pid
  assert not _ask(worker, odd.MODULES).labels.classes.any()
  answer = _ask(worker, odd.RAISE)
  assert answer.labels is None
  assert answer.problem == "RuntimeError: out of memory"
  assert _ask(worker).labels is not None and worker.pid == pid
  # A wrong answer ends the run.
  with refused("--teacher: its answer"):
    _ask(worker, odd.WRONG)


def test_pauses_double_up_to_the_longest_and_a_good_answer_ends_them(
  start, clock, monkeypatch
):
  monkeypatch.setattr(process, "LONGEST_PAUSE", 3.0)
  worker = start(clock=clock)
  for pause in (1, 2, 3, 3):
    answer = _ask_patiently(worker, odd.DIE)
    assert answer.labels is None
    assert answer.problem == (
      f"its process ended with code 7; it is started again in {pause} s"
    )
    clock.now += pause - 0.1
    for wait in (True, False):
      worker.ask(_sample())
      answer = worker.answer(wait)  # at once, whether one waits or not
      assert answer.problem.endswith("it is started again in 0.1 s")
    assert worker.pid is None
    clock.now += 0.2
    assert worker.poll() == "" and worker.pid is not None
    # Nobody waits for the restart, which takes longer than to ask.
    assert _ask(worker).problem == "its process is being started again"
  assert _ask_patiently(worker).labels is not None
  assert _ask(worker, odd.DIE).problem.endswith("again in 1 s")


def test_worker_killed_while_idle_is_told_of_once_and_its_restart_tried_again(
  start, clock
):
  worker = start(clock=clock)
  assert _ask(worker).labels is not None and worker.poll() == ""
  os.kill(worker.pid, signal.SIGKILL)
  assert until(worker.poll) == (
    "the teacher is away: its process was ended by SIGKILL; it is started "
    "again in 1 s"
  )
  assert worker.poll() == ""
  failing = mock.Mock(side_effect=OSError("no more processes"))
  with mock.patch.object(subprocess, "Popen", failing):
    clock.now += 1
    assert _ask(worker).problem == (
      "its process cannot be started: no more processes; it is started again "
      "in 2 s"
    )
  clock.now += 2
  assert _ask_patiently(worker).labels is not None


def test_worker_that_hangs_is_killed(start, clock):
  worker = start(clock=clock, timeout=5.0)
  # The first answer has ten times as long.
  for limit in (50, 5):
    pid = worker.pid
    worker.ask(_sample(odd.HANG))
    clock.now += limit - 0.1
    assert worker.answer(wait=False) is None and worker.pid == pid
    clock.now += 0.2
    answer = worker.answer(wait=False)
    assert f"no answer within {limit} s" in answer.problem
    until(lambda pid=pid: is_gone(pid))
    clock.now += 1
    assert _ask_patiently(worker).labels is not None


def test_worker_that_is_stopped_is_killed_while_one_waits(start):
  worker = start(timeout=0.3)
  _ask(worker)
  pid = worker.pid
  os.kill(pid, signal.SIGSTOP)
  before = time.monotonic()
  assert "no answer within 0.3 s" in _ask(worker).problem
  assert time.monotonic() - before < 5
  until(lambda: is_gone(pid))


@pytest.mark.parametrize(
  ("text", "error", "words"),
  [
    ("nobody", UserError, "--teacher=nobody"),
    ("no_such_module:make", UserError, "cannot be imported"),
    ("ground_truth:x", UserError, "has no preset"),
    (f"{odd.__name__}:raises_at_start", RuntimeError, "weights"),
    (f"{odd.__name__}:dies_at_start", RuntimeError, "code 3"),
  ],
)
def test_start_that_fails_is_told_in_a_line(start, text, error, words):
  with pytest.raises(error, match=words) as raised:
    start(text)
  assert "\n" not in str(raised.value)


def test_start_has_a_limit(start, monkeypatch):
  monkeypatch.setattr(process, "_POLL_SECONDS", 0.0)
  ticks = iter(range(0, 10_000, 30))
  with pytest.raises(RuntimeError, match="not ready within 600 s"):
    start(clock=ticks.__next__)


@pytest.mark.parametrize("what", [0, odd.HANG])
def test_nothing_is_left_after_the_end(start, what):
  files = set(os.listdir("/proc/self/fd"))
  worker = start()
  pid = worker.pid
  os.kill(pid, signal.SIGINT)  # Ctrl-C is for the asker
  if what == odd.HANG:
    worker.ask(_sample(what))
  else:
    assert _ask(worker).labels is not None
  before = time.monotonic()
  worker.close()
  assert is_gone(pid) and time.monotonic() - before < 3
  worker.close()
  assert worker.poll() == "" and worker.answer(wait=True) is None
  assert set(os.listdir("/proc/self/fd")) == files


_ORPHAN = f"""
import time
from tests.teachers import process_test as test
worker = test.process.InProcess(test.OBEDIENT, test.REQUEST, timeout=99)
worker.set_groups(test.GROUPS)
worker.ask(test._sample({odd.HANG}))
print(worker.pid, flush=True)
time.sleep(99)
"""


def test_worker_ends_with_whoever_started_it():
  command = [sys.executable, "-c", _ORPHAN]
  with subprocess.Popen(
    command, cwd=binaries.ROOT, stdout=subprocess.PIPE
  ) as asker:
    pid = int(asker.stdout.readline())
    assert not is_gone(pid)
    shared = os.listdir("/dev/shm")
    asker.kill()
    until(lambda: is_gone(pid), seconds=5)
  assert set(os.listdir("/dev/shm")) <= set(shared)


def test_teacher_is_asked_three_times():
  error, wrong = OSError("the cable"), UserError("no")
  for results, expected in (
    (["yes"], ("yes", "")),
    ([error, error, "yes"], ("yes", "")),
    ([error, error, error, "late"], (None, "OSError: the cable")),
  ):
    ask = mock.Mock(side_effect=results)
    assert labelers.retry(ask) == expected
    assert ask.call_count == min(len(results), labelers.TRIES)
  with pytest.raises(UserError):
    labelers.retry(mock.Mock(side_effect=[error, wrong, "yes"]))


def test_other_thread_answers_later_and_passes_a_request_error_on():
  teacher = base.make_teacher(OBEDIENT, REQUEST)
  thread = labelers.InThread(teacher, GROUPS)
  assert thread.answer(wait=True) is None  # there is no request
  assert _ask_patiently(thread).labels is not None
  assert thread.answer(wait=False) is None
  assert _ask(thread, odd.RAISE).problem == "RuntimeError: out of memory"
  with pytest.raises(UserError, match="its answer"):
    _ask(thread, odd.WRONG)
  thread.ask(_sample())
  thread.close()
  thread.close()
  assert thread.answer(wait=True) is None

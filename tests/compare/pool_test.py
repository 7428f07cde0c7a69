"""Processes that share tasks, and what becomes of those that die."""

import contextlib
import os
import time

import pytest

from ojd.compare import pool as pools
from ojd.compare.pool import Failed, Moved, Pool, Stopped
from tests import launches
from tests.reference import odd_workers


@pytest.fixture
def make_pool():
  with contextlib.ExitStack() as stack:
    make = lambda size: Pool(size, odd_workers.__name__)
    yield lambda size: stack.enter_context(contextlib.closing(make(size)))


def test_replies_are_in_the_order_of_the_tasks_and_processes_are_kept(
  make_pool,
):
  pool, told = make_pool(1), []
  tasks = [("a", 0), ("move", 3), ("b", 0)]
  replies = pool.run(tasks, note_fn=lambda *words: told.append(words))
  assert [reply[0] for reply in replies] == ["a", "move", "b"]
  pids = {reply[1] for reply in replies}
  assert len(pids) == 1
  assert told[1:4] == [(1, Moved(i)) for i in range(3)]
  assert [index for index, _ in told] == [0, 1, 1, 1, 1, 2]
  assert {pid for _, pid in pool.run([("c", 0)])} == pids
  pool.close()
  assert not any(map(launches.is_living, pids))


def test_one_that_dies_costs_its_own_task_alone(make_pool):
  tasks = [("a", 0), odd_workers.KILL, ("b", 0), ("leave", 3), ("c", 0)]
  a, killed, b, left, c = make_pool(1).run(tasks)
  assert (a[0], b[0], c[0]) == ("a", "b", "c")
  assert len({a[1], b[1], c[1]}) == 3
  assert killed == Failed("its process was ended by SIGKILL")
  assert left == Failed("its process ended with code 3")


def test_who_has_done_enough_is_replaced(make_pool, monkeypatch):
  monkeypatch.setattr(pools, "MOST_TASKS", 2)
  pool = make_pool(1)
  replies = pool.run([(name, 0) for name in "abcde"])
  assert [name for name, _ in replies] == list("abcde")
  a, b, c, d, e = (pid for _, pid in replies)
  assert a == b and c == d and len({a, c, e}) == 3
  assert [pid for pid in (a, c, e) if launches.is_living(pid)] == [e]


def test_two_work_at_once(make_pool, tmp_path):
  """Each ends when both are at work; one alone would wait in vain."""
  paths = tmp_path / "a", tmp_path / "b"
  tasks = [("meet", paths), ("meet", paths[::-1])]
  first, second = make_pool(2).run(tasks)
  assert first[0] == second[0] == "meet" and first[1] != second[1]


def test_who_is_told_to_stop_ends_its_task_early(make_pool):
  tasks = [("a", 0), ("wait", 0), ("wait", 0), ("b", 0)]
  end = time.monotonic() + 1.0
  replies = make_pool(2).run(tasks, should_stop=lambda: time.monotonic() > end)
  # The last one was never begun.
  assert replies[0][0] == "a"
  assert replies[1:] == [Stopped()] * 3


def test_an_exception_leaves_no_process(make_pool, tmp_path):
  path = tmp_path / "pid"

  def should_stop():
    if path.exists() and path.read_text():
      raise KeyboardInterrupt
    return False

  pool = make_pool(1)
  with pytest.raises(KeyboardInterrupt):
    pool.run([("hang", path)], should_stop=should_stop)
  pid = int(path.read_text())
  assert launches.is_living(pid) and pid != os.getpid()
  pool.close()
  assert not launches.is_living(pid)

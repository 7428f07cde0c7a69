"""The loop of a launch, its budget and what it shows, without processes."""

import io
import pathlib

import pytest
from rich import console as rich_console

from launch import display, drive, machine
from launch.runs import Run
from launch.table import Need
from tests import launches
from tests.reference.refusals import refused


def _runs(number):
  names = [f"r{i}" for i in range(number)]
  return [Run(name, ("m", name), pathlib.Path(name)) for name in names]


class _Machine:
  """Runs that end after so many looks, in so many places."""

  def __init__(self, places, looks=3):
    self.places, self.looks = places, looks
    self.active, self.most, self.log = 0, 0, []

  def start(self, run):
    if self.active == self.places:
      return None
    self.active += 1
    self.most = max(self.most, self.active)
    self.log.append(f"start {run.name}")
    return _Task(self, run.name)


class _Task:
  def __init__(self, machine, name):
    self._machine, self._name = machine, name
    self._left, self._is_stopped = machine.looks, False

  def poll(self):
    self._left -= 1
    if self._left and not self._is_stopped:
      return None
    self._machine.active -= 1
    return 143 if self._is_stopped else 0

  def stop(self):
    self._is_stopped = True
    self._machine.log.append(f"stop {self._name}")

  def kill(self):
    self._machine.log.append(f"kill {self._name}")


@pytest.fixture
def registry(tmp_path, monkeypatch):
  monkeypatch.setattr(drive, "_LOOK_SECONDS", 0.0)
  return launches.registry(tmp_path)


def test_all_run_in_order_in_the_places_there_are(registry):
  fake, told = _Machine(2), []
  ended = drive.drive(_runs(5), 3, registry, fake.start, watch=told.append)
  assert ended == drive.Ended(8, [], 0)
  assert fake.log == [f"start r{i}" for i in range(5)] and fake.most == 2
  assert told[-1].num_done == told[-1].num_all == 8 and not told[-1].active
  news = [progress.news for progress in told if progress.news]
  assert sorted(news) == sorted(
    f"r{i}: {words}" for i in range(5) for words in ("started", "done in 0 s")
  )


def test_wish_to_stop_reaches_all_that_run_and_starts_no_more(registry):
  fake, looks = _Machine(2, looks=10**9), iter([False, False, True])
  ended = drive.drive(
    _runs(5), 0, registry, fake.start, should_stop=lambda: next(looks, True)
  )
  assert fake.log == ["start r0", "start r1", "stop r0", "stop r1"]
  assert ended == drive.Ended(0, [], 5)


def test_whatever_happens_nothing_is_left_running(registry):
  fake = _Machine(2, looks=10**9)

  def watch(progress):
    if len(progress.active) == 2:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    drive.drive(_runs(3), 0, registry, fake.start, watch=watch)
  assert fake.log[2:] == ["kill r0", "kill r1"]


def test_time_left_is_by_the_runs_that_ended(registry):
  told = []
  clock = lambda: float(len(told))
  options = {"watch": told.append, "clock": clock}
  drive.drive(_runs(4), 0, registry, _Machine(1).start, **options)
  first = next(p for p in told if p.num_done == 1)
  ended = told.index(first)  # seconds that the first one took
  assert first.eta == pytest.approx(ended * 3)
  assert all(p.eta is None for p in told[:ended]) and told[-1].eta == 0


def test_budget_is_never_overdrawn_and_what_never_fits_is_refused():
  budget = machine.Budget([2, 5, 7], 5.0, ["a"])
  need = Need(cores=1, memory_gb=2.0)
  first, second = budget.take(need), budget.take(need)
  assert (first.cores, second.cores) == ((2,), (5,))
  assert budget.take(need) is None  # a core is there, but no memory
  assert budget.take(Need(cores=2, memory_gb=0.5)) is None
  assert budget.take(Need(cores=1, memory_gb=0.5, gpus=1)).gpus == ("a",)
  budget.give_back(first)
  assert budget.take(need).cores == (2,)
  for need, words in (
    (Need(4, 1.0), "takes 4 cores, and there are 3 (--cores)"),
    (Need(1, 5.5), "takes 5.5 GB of memory, and there are 5 (--memory_gb)"),
    (Need(1, 1.0, 2), "takes 2 GPUs, and there are 1 (CUDA_VISIBLE_DEVICES)"),
  ):
    with refused(words):
      machine.Budget([0, 1, 2], 5.0, ["a"]).check(need)


def test_memory_is_that_of_the_container_where_it_is_less(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(machine, "_MEMORY", tmp_path / "meminfo")
  monkeypatch.setattr(machine, "_CGROUP", tmp_path)
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
  words = "MemTotal: 9000000 kB\nMemAvailable:    4000000 kB\n"
  (tmp_path / "meminfo").write_text(words)
  need = Need(1, 4.0, 2)
  machine.budget(1, None).check(need)  # 4.096 GB
  (tmp_path / "memory.max").write_text("max\n")
  (tmp_path / "memory.current").write_text("1000000000\n")
  machine.budget(1, None).check(need)
  (tmp_path / "memory.max").write_text("3000000000\n")
  with refused("4 GB of memory, and there are 2 "):
    machine.budget(1, None).check(need)
  assert machine.budget(1, 8.0).take(need).gpus == ("3", "5")
  with refused("--cores=100000: from 1 to"):
    machine.budget(100_000, None)


_PROGRESS = drive.Progress(
  2, 1, 9, 3725.4, [drive.Active("a[b]", 61.0, "frame 3/9 [x]")]
)


def test_log_has_a_line_for_news_and_one_now_and_then():
  lines, now = [], [0.0]
  log = display.Log(lambda: now[0], lines.append)
  log(_PROGRESS)
  assert lines == []
  log(_PROGRESS._replace(news="c: done in 3 s"))
  now[0] = 31.0
  log(_PROGRESS)
  line = "2/9 done, 1 failed, 1 running, ETA 1:02:05"
  assert lines == [f"{line}  c: done in 3 s", line]


def test_display_shows_what_each_run_says():
  file = io.StringIO()
  console = rich_console.Console(file=file, force_terminal=True, width=78)
  shown = display.Display(console)
  shown(_PROGRESS._replace(news="c[d]: done in 3 s"))
  shown(_PROGRESS._replace(num_done=9, active=[]))  # too soon to be drawn
  shown.close()
  text = file.getvalue()
  for words in ("c[d]: done", "2/9 done", "a[b]", "0:01:01", "frame 3/9 [x]"):
    assert words in text
  assert text.rindex("9/9 done") > text.rindex("a[b]")

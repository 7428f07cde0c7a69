r"""Runs many streams at once on shared devices with a shared teacher.

    python -m experiments.fleet --smoke
    python -m experiments.fleet --streams=list.txt --workdir=runs/site \
        --height=256 --width=448 --teacher_rate=5

The first finishes in under a minute and prints `done: 3 of 3 streams`. list.txt
has a line `URI` or `NAME, URI` for each stream. Every stream has a workdir like
that of `online_distill`, runs/site/streams/NAME; runs/site/report/index.html
and summary.json are about all of them. The same command resumes, and adds
streams that are new in the list. A stream that fails does not stop the others;
the exit code is then 1.
"""

import contextlib
import functools
import os
import shutil
import sys
import tempfile
from typing import Any

import jax
from absl import flags
from rich import console as rich_console
from rich import live as rich_live
from rich import table as rich_table

from experiments import cli, fleet_plan, progress, run_flags
from ojd.errors import UserError
from ojd.fleet import folder, handle, listing, report, runner
from ojd.fleet import ray as cluster
from ojd.fleet.runner import Progress
from ojd.fleet.teachers import Teachers
from ojd.run import compilation, workdir
from ojd.run import config as config_lib

flags.adopt_module_key_flags(run_flags)
flags.adopt_module_key_flags(fleet_plan)
_STREAMS = flags.DEFINE_string(
  "streams", "", "a file with a line for each stream: ADDRESS, or NAME, ADDRESS"
)
_TEACHER_RATE = flags.DEFINE_float(
  "teacher_rate",
  None,
  "calls of the teacher a second of stream time, shared between the streams by "
  "priority; empty: unlimited",
)
_TEACHER_BATCH = flags.DEFINE_integer(
  "teacher_batch",
  None,
  "the most frames in a batch of the teacher; empty: 1 on a CPU, 8 on a GPU",
  lower_bound=1,
)
_STORE = flags.DEFINE_string(
  "student_store",
  "",
  "a folder of trained students for the warm start of new streams; empty: in "
  "the workdir; none: no warm start",
)
_MAX_STUDENTS = flags.DEFINE_integer(
  "max_students", 16, "the most students in the student store", lower_bound=1
)
_REALTIME = flags.DEFINE_bool(
  "realtime", False, "play files at their own rate, as cameras would"
)
_DEVICES = flags.DEFINE_integer(
  "devices",
  None,
  "number of devices of this machine; empty: all of them, on a CPU one for "
  "each core",
  lower_bound=1,
)
_RAY = flags.DEFINE_string(
  "ray",
  "",
  "run on a Ray cluster whose nodes share the workdir: auto for the one that "
  "is running, HOST:PORT, or local for one that this command starts; needs "
  "ojd[ray]",
)
_ACTORS = flags.DEFINE_integer(
  "actors",
  None,
  "Ray actors that run streams; empty: one for each node",
  lower_bound=1,
)
_ACTOR_GPUS = flags.DEFINE_float("actor_gpus", 0.0, "GPUs for each actor")
_REPLICAS = flags.DEFINE_integer(
  "replicas", 1, "Ray actors that hold the teacher", lower_bound=1
)
_REPLICA_GPUS = flags.DEFINE_float(
  "replica_gpus", 0.0, "GPUs for each replica; with 0.5 two replicas share one"
)
_SIMULATE = flags.DEFINE_bool(
  "simulate",
  False,
  "simulate fleets of streams like the runs of --runs, and run nothing",
)
_SMOKE = flags.DEFINE_bool("smoke", False, "run three tiny drawn streams")

_LINES_BESIDE = 6  # of the terminal, for the head and the caption
_SMOKE_DEFAULTS = {"height": 64, "width": 96, "num_frames": 24}
# A fleet has hundreds of streams: overlay videos on request only.
_DEFAULTS = {"overlay": False}
_COMMAND_ALONE = functools.partial(
  config_lib.command, "experiments.online_distill"
)
_NOT_HERE = {
  "stream": "the streams of a fleet are in the file of --streams",
  "wandb": "a process has one run there; --tensorboard has room for many",
}


def main() -> int:
  """Runs the streams and prints a summary."""
  if _SIMULATE.value:
    return fleet_plan.simulate(_folder(run_flags.run_config()))
  request = _request()
  run = _run_on_ray if _RAY.value else _run_here
  if _RAY.value:
    cluster.connect(_RAY.value)
  # After Ray, which replaces the handler of SIGTERM.
  interrupt = cli.Interrupt()
  watcher = _Table() if sys.stderr.isatty() else progress.Log(_VIEW)
  try:
    found = run(
      request,
      command_fn=_COMMAND_ALONE,
      progress_fn=watcher,
      should_stop=interrupt.is_wanted,
    )
  finally:
    watcher.close()
  page = report.write(request.path)
  print(_in_words(found))
  print(f"report: {page}")
  return interrupt.exit_code() or (
    cli.FAILURE if found["states"]["dead"] else 0
  )


def _run_here(request, **callbacks):
  _use_devices(len(request.entries))
  compilation.enable_cache(compilation.default_cache())
  request = request._replace(devices=jax.local_devices()[: _DEVICES.value])
  with contextlib.closing(Teachers(_TEACHER_BATCH.value)) as teachers:
    return runner.run(request, teachers, **callbacks)


def _run_on_ray(request, **callbacks):
  from ojd.fleet import ray_actors, ray_runner

  plan = ray_actors.Plan(
    num_workers=_ACTORS.value,
    num_replicas=_REPLICAS.value,
    replica_gpus=_REPLICA_GPUS.value,
    worker_gpus=_ACTOR_GPUS.value,
    batch=_TEACHER_BATCH.value,
  )
  return ray_runner.run(request, plan, **callbacks)


def _request() -> runner.Request:
  """What the flags ask for."""
  for name, words in _NOT_HERE.items():
    if name in run_flags.given():
      raise UserError(f"--{name}: {words}")
  config = run_flags.run_config(
    _DEFAULTS | (_SMOKE_DEFAULTS if _SMOKE.value else {})
  )
  if _SMOKE.value and not config.workdir:
    config = run_flags.with_workdir(config, tempfile.mkdtemp(prefix="ojd-"))
  path = _folder(config)
  entries = _entries()
  rate = _TEACHER_RATE.value
  if rate is not None and not 0 < rate < float("inf"):
    raise UserError(f"--teacher_rate={rate}: above 0")
  store = path / folder.STUDENTS
  if _STORE.value:
    store = workdir.expand(_STORE.value, "student_store")
  return runner.Request(
    path,
    config,
    entries,
    command=" ".join(["python -m experiments.fleet", *sys.argv[1:]]),
    teacher_rate=rate,
    student_store=None if _STORE.value == "none" else store,
    max_students=_MAX_STUDENTS.value,
    is_paced=_REALTIME.value,
  )


def _folder(config):
  if not config.workdir:
    raise UserError("--workdir=DIR is missing: the folder of the fleet")
  return workdir.expand(config.workdir)


def _entries():
  if _SMOKE.value and not _STREAMS.value:
    scenes = ("street", "sports", "park")
    return [listing.Entry(s, f"synthetic:{s}?seed=1") for s in scenes]
  if not _STREAMS.value:
    raise UserError("--streams=FILE is missing: the list of streams")
  entries, notes = listing.read(workdir.expand(_STREAMS.value, "streams"))
  for note in notes:
    print(note, file=sys.stderr)
  return entries


def _use_devices(num_streams):
  """Makes jax see the devices asked for; on a CPU its cores."""
  cores = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
  )
  wanted = _DEVICES.value or min(cores, num_streams)
  jax.config.update("jax_num_cpu_devices", wanted)
  there = len(jax.local_devices())
  if _DEVICES.value and _DEVICES.value > there:
    raise UserError(
      f"--devices={_DEVICES.value}: this machine has {there} of "
      f"{jax.default_backend()}"
    )


def _count(progress):
  """Frames of all streams, and how many there will be, if that is known."""
  running = [one.progress for one in progress.handles if one.progress]
  lengths = [each.total for each in running]
  done = sum(each.num_frames for each in running)
  return done, None if None in lengths else sum(lengths)


def _totals(progress: Progress) -> str:
  """All streams in a line."""
  states = [one.state for one in progress.handles]
  running = [one for one in progress.handles if one.progress]
  mious = [one.progress.miou for one in running]
  known = [miou for miou in mious if miou is not None]
  fps = sum(one.progress.fps for one in running if one.state == handle.RUNNING)
  words = [
    f"{states.count(handle.RUNNING)} of {len(states)} streams run",
    f"{states.count(handle.DONE)} done",
    f"{states.count(handle.DEAD)} dead",
    f"{fps:.1f} fps",
    f"{sum(one.progress.num_keys for one in running)} key frames",
    f"teacher {progress.teachers.num_answers} answers, "
    f"{_busy(progress):.0%} busy",
    "mIoU " + (f"{sum(known) / len(known):.3f}" if known else "-"),
  ]
  return "  ".join(words)


def _busy(progress):
  teachers = progress.teachers
  seconds = progress.seconds * max(teachers.num_teachers, 1)
  return teachers.seconds / seconds if seconds else 0.0


class _Table:
  """A line a stream, those first that run, as many as the terminal shows."""

  def __init__(self):
    self._console = rich_console.Console(stderr=True)
    self._live = rich_live.Live(console=self._console, auto_refresh=False)
    self._live.start()

  def __call__(self, progress: Progress) -> None:
    if progress.news:
      self._console.print(progress.news, markup=False, highlight=False)
      return
    height = shutil.get_terminal_size().lines
    self._live.update(
      _table(progress, max(height - _LINES_BESIDE, 1)), refresh=True
    )

  def close(self) -> None:
    """Leaves the last state on the screen."""
    self._live.stop()


def _table(progress: Progress, num_lines: int) -> rich_table.Table:
  """The streams, and all of them in the caption."""
  done, total = _count(progress)
  of_total = "" if total is None else f"/{total}"
  caption = f"frame {done}{of_total}  {_totals(progress)}"
  shown = rich_table.Table(box=None, caption=caption, caption_justify="left")
  shown.add_column("stream", no_wrap=True)
  for name in ("frame", "fps", "stride", "keys", "updates", "mIoU", "state"):
    shown.add_column(name, justify="right", no_wrap=True)
  order = [handle.RUNNING, handle.DEAD, handle.NEW, handle.STOPPED, handle.DONE]
  ranked = sorted(progress.handles, key=lambda one: order.index(one.state))
  for one in ranked[:num_lines]:
    shown.add_row(one.name, *_cells(one), one.state)
  if len(ranked) > num_lines:
    shown.add_row(f"... and {len(ranked) - num_lines} more")
  return shown


def _cells(one):
  found = one.progress
  if found is None:
    return [""] * 6
  total = f"/{found.total}" if found.total else ""
  return [
    f"{found.num_frames}{total}",
    f"{found.fps:.1f}",
    str(found.stride),
    str(found.num_keys),
    str(found.num_updates),
    "-" if found.miou is None else f"{found.miou:.3f}",
  ]


_VIEW = progress.View(_count, _totals, lambda progress: progress.news)


def _in_words(summary: dict[str, Any]) -> str:
  """A fleet's summary in a few lines, and one for each stream that is dead."""
  last, states = summary["last_session"], summary["states"]
  others = ", ".join(
    f"{states[name]} {name}" for name in ("stopped", "dead") if states[name]
  )
  mean = summary["miou"]
  deferred = summary["deferred"]
  lines = [
    f"{'done' if summary['finished'] else 'not done'}: "
    f"{states['done']} of {summary['num_streams']} streams"
    + (f" ({others})" if others else "")
    + f", {summary['num_frames']} frames, {summary['num_key_frames']} key "
    f"frames"
    + (f" ({deferred} times deferred)" if deferred else "")
    + f", {summary['num_updates']} updates",
    f"{last['fps']:.1f} frames/s and {last['teacher_calls_per_second']:.2f} "
    f"calls of a shared teacher a second over {last['seconds']:.0f} s; "
    f"mean mIoU of the streams "
    + ("not measured" if mean is None else f"{mean:.3f}"),
  ]
  for name, one in summary["streams"].items():
    if one["state"] == handle.DEAD:
      lines.append(f"dead: {name}: {one['problem']}")
  return "\n".join(lines)


if __name__ == "__main__":
  cli.run(main)

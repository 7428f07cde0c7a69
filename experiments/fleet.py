r"""Runs many streams at once, which share a machine's devices and a teacher.

    python -m experiments.fleet --smoke
    python -m experiments.fleet --streams=list.txt --workdir=runs/site \
        --height=256 --width=448 --teacher_rate=5

The first finishes in under a minute. list.txt has a line `URI` or `NAME, URI`
for each stream. Every stream leaves runs/site/streams/NAME, a workdir as
`online_distill` does; runs/site/report/index.html is about all of them, and
summary.json has them in numbers. The same command goes on where it stopped, and
with the streams that are new in the list; a stream that fails does so alone,
and the exit code is 1 then.
"""

import contextlib
import functools
import os
import sys
import tempfile

import jax
from absl import flags

from experiments import cli, fleet_plan, fleet_progress, run_flags
from ojd.errors import UserError
from ojd.fleet import fleet, folder, listing, report
from ojd.fleet.cluster import connecting
from ojd.fleet.teachers import Desks
from ojd.run import compilation, workdir

flags.adopt_module_key_flags(run_flags)
flags.adopt_module_key_flags(fleet_plan)
_STREAMS = flags.DEFINE_string(
  "streams", "", "a file with a line for each stream: URI, or NAME, URI"
)
_TEACHER_RATE = flags.DEFINE_float(
  "teacher_rate",
  None,
  "calls of the teacher in a second of the streams, shared between them by "
  "need; empty: as many as they want",
)
_TEACHER_BATCH = flags.DEFINE_integer(
  "teacher_batch",
  None,
  "the most frames that a teacher looks at at once; empty: 1 on a CPU, 8 on a "
  "GPU",
)
_ZOO = flags.DEFINE_string(
  "zoo",
  "",
  "the folder of the students that the site has taught, from which new streams "
  "begin; empty: in the workdir; none: without",
)
_ZOO_SIZE = flags.DEFINE_integer("zoo_size", 16, "the most students in it")
_REALTIME = flags.DEFINE_bool(
  "realtime", False, "play files at their own rate, as cameras would"
)
_DEVICES = flags.DEFINE_integer(
  "devices", None, "of this machine; empty: all, on a CPU one for each core"
)
_RAY = flags.DEFINE_string(
  "ray",
  "",
  "run on a Ray cluster, all of whose nodes see the workdir: auto, the one "
  "that runs here; HOST:PORT; local, one that begins and ends with this; needs "
  "ojd[ray]",
)
_ACTORS = flags.DEFINE_integer(
  "actors", None, "of Ray, that run streams; empty: one for each node"
)
_ACTOR_GPUS = flags.DEFINE_float("actor_gpus", 0.0, "of each of them")
_REPLICAS = flags.DEFINE_integer("replicas", 1, "of the teacher, on Ray")
_REPLICA_GPUS = flags.DEFINE_float(
  "replica_gpus", 0.0, "of each of them; 0.5: two share one"
)
_SIMULATE = flags.DEFINE_bool(
  "simulate",
  False,
  "run nothing; simulate what fleets of streams like those of --runs need",
)
_SMOKE = flags.DEFINE_bool("smoke", False, "three tiny streams, made up")

_SMOKE_DEFAULTS = {"height": 64, "width": 96, "num_frames": 24}
# A site has hundreds of streams: pictures of each only where they are wanted.
_DEFAULTS = {"overlay": False}
_COMMAND_ALONE = functools.partial(
  run_flags.command, "experiments.online_distill"
)
_NOT_HERE = {
  "stream": "the streams of a fleet are in the file of --streams",
  "wandb": "a process has one run there; --tensorboard has room for many",
}


def main() -> int:
  """Runs the streams and prints what came of them."""
  if _SIMULATE.value:
    return fleet_plan.simulate(_folder(run_flags.run_config()))
  request = _request()
  run = _run_on_ray if _RAY.value else _run_here
  if _RAY.value:
    connecting.connect(_RAY.value)
  # Ray has put its own in the place of what SIGTERM did before.
  interrupt, watcher = cli.Interrupt(), fleet_progress.watcher()
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
  print(fleet_progress.in_words(found))
  print(f"report: {page}")
  return interrupt.exit_code() or (
    cli.FAILURE if found["states"]["dead"] else 0
  )


def _run_here(request, **people):
  _use_devices(len(request.entries))
  compilation.enable_cache(compilation.default_cache())
  request = request._replace(devices=jax.local_devices()[: _DEVICES.value])
  with contextlib.closing(Desks(_TEACHER_BATCH.value)) as teachers:
    return fleet.run(request, teachers, **people)


def _run_on_ray(request, **people):
  from ojd.fleet.cluster import driver

  plan = driver.Plan(
    num_crews=_ACTORS.value,
    num_replicas=_REPLICAS.value,
    replica_gpus=_REPLICA_GPUS.value,
    crew_gpus=_ACTOR_GPUS.value,
    batch=_TEACHER_BATCH.value,
  )
  return driver.run(request, plan, **people)


def _request() -> fleet.Request:
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
  for name, value in (
    ("teacher_rate", _TEACHER_RATE.value),
    ("teacher_batch", _TEACHER_BATCH.value),
    ("zoo_size", _ZOO_SIZE.value),
    ("devices", _DEVICES.value),
    ("actors", _ACTORS.value),
    ("replicas", _REPLICAS.value),
  ):
    if value is not None and not 0 < value < 1e9:
      raise UserError(f"--{name}={value}: above 0")
  zoo = workdir.expand(_ZOO.value, "zoo") if _ZOO.value else path / folder.ZOO
  return fleet.Request(
    path,
    config,
    entries,
    command=" ".join(["python -m experiments.fleet", *sys.argv[1:]]),
    teacher_rate=_TEACHER_RATE.value,
    zoo=None if _ZOO.value == "none" else zoo,
    zoo_size=_ZOO_SIZE.value,
    is_paced=_REALTIME.value,
  )


def _folder(config):
  if not config.workdir:
    raise UserError("--workdir=DIR is missing: where should the fleet go?")
  return workdir.expand(config.workdir)


def _entries():
  if _SMOKE.value and not _STREAMS.value:
    scenes = ("street", "sports", "park")
    return [listing.Entry(s, f"synthetic:{s}?seed=1") for s in scenes]
  if not _STREAMS.value:
    raise UserError("--streams=FILE is missing: which streams are there?")
  entries, notes = listing.read(workdir.expand(_STREAMS.value, "streams"))
  for note in notes:
    print(note, file=sys.stderr)
  return entries


def _use_devices(num_streams):
  """Lets jax see the devices asked for; cores, where there is no other."""
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


if __name__ == "__main__":
  cli.run(main)

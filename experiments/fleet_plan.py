r"""Simulates fleets, to plan them: `experiments.fleet --simulate`.

    python -m experiments.fleet --simulate --workdir=runs/plan \
        --runs=street=runs/street,runs/street2 --runs=sports=runs/sports \
        --latency=0.2
    python -m experiments.fleet --simulate --workdir=runs/plan \
        --runs=street=runs/street --export_traces=traces
    python -m experiments.fleet --simulate --check=runs/fleet

The first simulates 10 to 100,000 streams that ask as the recorded runs did,
and writes plan.csv, plan.json and plan.png, in about a minute;
`--plan_teacher_ms` and `--plan_device_speed` replace the recorded times by
those of other machines. The second exports what the simulation needs of the
runs, a few kB a scene, as files that --runs takes too. The last compares a
fleet that ran with a simulation of it.
"""

import dataclasses
import pathlib
import sys

from absl import flags

from ojd.errors import UserError
from ojd.fleet import plan, plan_chart, plan_check
from ojd.fleet import trace as trace_lib
from ojd.run import workdir

TABLE, CHART, CONTENT = "plan.csv", "plan.png", "plan.json"

_RUNS = flags.DEFINE_multi_string(
  "runs",
  [],
  "NAME=DIR,DIR,...: finished runs of a kind of scene, or files of "
  "--export_traces; again for each kind",
)
_LATENCY = flags.DEFINE_float(
  "latency",
  0.2,
  "seconds within which 95% of the key frames must be answered",
)
_SIZES = flags.DEFINE_list(
  "sizes",
  ["10", "30", "100", "300", "1000", "3000", "10000", "30000", "100000"],
  "numbers of streams to plan for",
)
_STREAMS = flags.DEFINE_integer(
  "plan_streams",
  1000,
  "number of streams in the detailed simulation of one size",
  lower_bound=1,
)
_BATCH = flags.DEFINE_integer(
  "plan_batch",
  1,
  "the most frames in a batch of a simulated teacher",
  lower_bound=1,
)
_MORE = flags.DEFINE_float(
  "plan_more",
  1.0,
  "time of a further frame in a batch, over the time of a frame alone",
)
_PER_DEVICE = flags.DEFINE_integer(
  "streams_per_device",
  0,
  "streams that share a device of the recorded kind for prediction and "
  "learning; 0: each stream has its own",
  lower_bound=0,
)
_TEACHER_MS = flags.DEFINE_float(
  "plan_teacher_ms",
  None,
  "milliseconds that a simulated teacher takes for a frame alone; empty: as "
  "recorded, frame by frame",
)
_DEVICE_SPEED = flags.DEFINE_float(
  "plan_device_speed",
  1.0,
  "speed of the device that predicts and learns, over that of the recorded "
  "device",
)
_FPS = flags.DEFINE_float(
  "plan_fps", None, "frames a second of streams whose runs do not say it"
)
_SEED = flags.DEFINE_integer(
  "plan_seed", 0, "seed of the simulations", lower_bound=0
)
_EXPORT = flags.DEFINE_string(
  "export_traces",
  "",
  "a folder for what the simulation needs of --runs, NAME.json for each",
)
_CHECK = flags.DEFINE_string(
  "check",
  "",
  "the folder of a fleet that ran with one teacher: compare how long its key "
  "frames waited with a simulation",
)


def simulate(output: pathlib.Path) -> int:
  """Does what the flags ask for; the exit code.

  Args:
    output: the folder of the plan.
  """
  terms = _terms()
  if _CHECK.value:
    return _check(workdir.expand(_CHECK.value, "check"), terms)
  scenes = _scenes()
  if _EXPORT.value:
    return _export(scenes, workdir.expand(_EXPORT.value, "export_traces"))
  sizes, note = _sizes(), lambda words: print(words, file=sys.stderr)
  scenes = [_with_times(scene) for scene in scenes]
  facts = {scene.name: plan.alone(scene, terms) for scene in scenes}
  _make(output)
  points = plan.by_size(scenes, sizes, terms, note)
  print(plan.text(points))
  closer = plan.sweep(scenes, _STREAMS.value, terms, note)
  print(f"\n{plan.text(closer)}\n\n{plan.in_words(facts)}")
  try:
    plan.write_csv({"needed": points, "sweep": closer}, output / TABLE)
    content = _content(scenes, facts, terms, points, closer)
    workdir.write_json(output / CONTENT, content)
    plan_chart.write_png(points, closer, facts, terms, output / CHART)
  except OSError as error:
    raise UserError(f"--workdir={output}: {error.strerror}") from None
  print(f"{output / TABLE}, {output / CONTENT}, {output / CHART}")
  return 0


def _make(output):
  try:
    output.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"--workdir={output}: {error.strerror}") from None


def _terms():
  if not 0 < _MORE.value <= 1:
    raise UserError(f"--plan_more={_MORE.value:g}: above 0, at most 1")
  for holder in (_LATENCY, _FPS, _TEACHER_MS, _DEVICE_SPEED):
    if holder.value is not None and not 0 < holder.value < float("inf"):
      raise UserError(f"--{holder.name}={holder.value:g}: above 0")
  return plan.Terms(
    latency=_LATENCY.value,
    batch=_BATCH.value,
    more=_MORE.value,
    streams_per_device=_PER_DEVICE.value,
    seed=_SEED.value,
  )


def _sizes():
  try:
    sizes = sorted({int(word) for word in _SIZES.value})
  except ValueError:
    sizes = []
  if not sizes or sizes[0] < 1:
    raise UserError(
      f"--sizes={','.join(_SIZES.value)}: numbers of streams, as in 10,1000"
    )
  return sizes


def _scenes():
  if not _RUNS.value:
    raise UserError(
      "--runs=NAME=DIR,... is missing; `python -m experiments.online_distill "
      "--workdir=runs/street --stream=synthetic:street` makes such a run"
    )
  scenes = [_scene(text) for text in _RUNS.value]
  names = [scene.name for scene in scenes]
  twice = next((n for n in names if names.count(n) > 1), None)
  if twice is not None:
    raise UserError(
      f"--runs: two kinds of scene are called {twice}; name them NAME=DIR,..."
    )
  return scenes


def _scene(text):
  name, equals, rest = text.partition("=")
  words = (rest if equals else text).split(",")
  if not all(words) or (equals and not name):
    raise UserError(f"--runs={text}: NAME=DIR,DIR,...")
  paths = [workdir.expand(word, "runs") for word in words]
  traces = [trace_lib.read(path, _FPS.value) for path in paths]
  return plan.Scene(name if equals else paths[0].stem, tuple(traces))


def _with_times(scene):
  """The scene with the times of the flags."""
  times = (_TEACHER_MS.value, _DEVICE_SPEED.value)
  return scene._replace(
    traces=tuple(trace_lib.with_times(x, *times) for x in scene.traces)
  )


def _export(scenes, folder):
  for scene in scenes:
    if len(scene.traces) > 1:
      raise UserError(
        f"--export_traces: {scene.name} has {len(scene.traces)} runs; a "
        "file is of one, so name each"
      )
    path = folder / f"{scene.name}.json"
    trace_lib.write(scene.traces[0], path)
    print(path)
  return 0


def _check(output, terms):
  streams = plan_check.read(output, terms.more, _FPS.value)
  sides = plan_check.compare(streams, terms.batch, terms.more)
  print(plan_check.text(streams, sides))
  return 0


def _content(scenes, facts, terms, points, closer):
  """The content of plan.json."""
  return {
    "terms": {
      **dataclasses.asdict(terms),
      "teacher_ms": _TEACHER_MS.value,
      "device_speed": _DEVICE_SPEED.value,
    },
    "scenes": {
      scene.name: {
        **facts[scene.name]._asdict(),
        "runs": [x.source for x in scene.traces],
      }
      for scene in scenes
    },
    "needed": [point._asdict() for point in points],
    "sweep": [point._asdict() for point in closer],
  }

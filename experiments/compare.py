r"""Compares systems over the same streams: the paper's Tables 2 and 3.

    python -m experiments.compare --smoke
    python -m experiments.compare --output=results/clips \
        --teacher=ground_truth --init=random --height=240 --width=432 \
        --streams=folder:clips/car-shadow,folder:clips/dance-twirl@Dance \
        --systems=jit:a_thresh=0.7,jit:a_thresh=0.9,fixed:stride=16,frozen
    python -m experiments.compare --output=results/updates \
        --streams_file=streams.txt --updates=sgd,adam --repeat=3 --jobs=2

Runs every system over every stream, in DIR/cells; the flags of online_distill
hold for all runs. Prints accuracy and cost with averages by category; writes
table.txt, table.csv, cells.csv, table.tex, accuracy.png and index.html. Takes
as long as the runs do; the same command resumes, and a longer one adds streams,
systems or seeds. The first, --smoke, compares three systems on two short
streams in under a minute; `frozen` has 0.0% key frames there. The exit code is
1 if a run failed.
"""

import dataclasses
import pathlib
import shlex
import sys
import tempfile

from absl import flags

from experiments import cli, progress, run_flags
from ojd.compare import compare, folder, results, spec
from ojd.errors import UserError
from ojd.run import config as config_lib

flags.adopt_module_key_flags(run_flags)
_STREAMS = flags.DEFINE_multi_string(
  "streams",
  [],
  r"URI[@CATEGORY],...; a comma in an address is \, and an at sign \@",
)
_STREAMS_FILE = flags.DEFINE_string(
  "streams_file", "", "a file of lines: category, name, URI"
)
_SYSTEMS = flags.DEFINE_string(
  "systems",
  "",
  "NAME[:WORD or OPTION=VALUE]...,... with an option of "
  + ", ".join(spec.OPTIONS)
  + "; empty: the paper's jit at an a_thresh of 0.7, 0.8 and 0.9",
)
_UPDATES = flags.DEFINE_list(
  "updates", [], "gradient steps to compare, each as jit:update=NAME"
)
_OUTPUT = flags.DEFINE_string("output", "", "the folder for the results")
_REPEAT = flags.DEFINE_integer("repeat", 1, "number of seeds, from --seed on")
_JOBS = flags.DEFINE_integer(
  "jobs", 1, "runs at a time; times are then not those of a run alone"
)
_DAVIS = flags.DEFINE_bool(
  "davis_measures",
  False,
  "also compute the region similarity and boundary measure of DAVIS; for "
  "streams with labels of one class",
)
_TEMPORAL = flags.DEFINE_bool(
  "temporal_measures",
  False,
  "also compute how steady the answers are: consistency along the optical "
  "flow, and flicker where nothing changes",
)
_SMOKE = flags.DEFINE_bool(
  "smoke", False, "make a tiny comparison, to see that it works"
)

_PAPER = "jit:a_thresh=0.7,jit:a_thresh=0.8,jit:a_thresh=0.9"
_SMOKE_STREAMS = "synthetic:street@Traffic,synthetic:sports@Sports"
_SMOKE_SYSTEMS = "jit,fixed:stride=4,frozen"
_SMOKE_DEFAULTS = {
  **{"height": 64, "width": 96, "num_frames": 24},
  **{"teacher": "ground_truth", "classes": "person"},
}
_OF_ONE_RUN = {"stream": "streams", "system": "systems", "workdir": "output"}

_VIEW = progress.View(
  count=lambda progress: (progress.num_frames, progress.total),
  text=lambda progress: f"run {progress.num_cells}/{progress.num_all}",
  news=lambda progress: progress.news,
)


def main() -> int:
  """Runs what is not there yet, writes the results and prints the table."""
  request = _request()
  interrupt, watcher = cli.Interrupt(), progress.watcher(_VIEW)
  try:
    cells = compare.run(
      request,
      lambda config: config_lib.command("experiments.online_distill", config),
      progress_fn=watcher,
      should_stop=interrupt.is_wanted,
    )
  finally:
    watcher.close()
  if cells is None:
    print("stopped; the same command resumes", file=sys.stderr)
    return interrupt.exit_code()
  print(results.write(request, cells, _command()))
  print(f"\npage: {request.output / folder.PAGE}")
  return cli.FAILURE if any(cell.numbers is None for cell in cells) else 0


def _request():
  """The comparison of the flags."""
  given = run_flags.given()
  for name, instead in _OF_ONE_RUN.items():
    if name in given:
      raise UserError(f"--{name} is a flag of one run; here use --{instead}")
  if _REPEAT.value < 1:
    raise UserError(f"--repeat={_REPEAT.value}: at least 1")
  smoke = _SMOKE.value
  defaults = {"overlay": False} | (_SMOKE_DEFAULTS if smoke else {})
  config = run_flags.run_config(defaults)
  needs_masks = _DAVIS.value or _TEMPORAL.value
  if needs_masks and config.save_masks == "none":
    config = dataclasses.replace(config, save_masks="video")
  output = _OUTPUT.value or (tempfile.mkdtemp(prefix="ojd-") if smoke else "")
  updates = tuple(spec.of_updates(_UPDATES.value))
  return compare.Request(
    config=config,
    streams=tuple(_streams(smoke)),
    systems=tuple(_systems(smoke, updates)),
    seeds=tuple(range(config.seed, config.seed + _REPEAT.value)),
    output=folder.expand(output),
    num_jobs=_JOBS.value,
    has_davis=_DAVIS.value,
    has_temporal=_TEMPORAL.value,
    updates=updates,
  )


def _streams(smoke):
  if _STREAMS.value and _STREAMS_FILE.value:
    raise UserError("--streams and --streams_file: give one of them")
  if _STREAMS_FILE.value:
    return spec.read_streams_file(pathlib.Path(_STREAMS_FILE.value))
  if not _STREAMS.value and not smoke:
    raise UserError("--streams=URI,... is missing: the streams to compare over")
  return spec.parse_streams(_STREAMS.value or [_SMOKE_STREAMS])


def _systems(smoke, updates):
  text = _SYSTEMS.value
  if not text and updates:
    return updates
  return (
    *spec.parse_systems(text or (_SMOKE_SYSTEMS if smoke else _PAPER)),
    *updates,
  )


def _command():
  """The command line of this comparison."""
  words = " ".join(map(shlex.quote, sys.argv[1:]))
  return f"python -m experiments.compare {words}"


if __name__ == "__main__":
  cli.run(main)

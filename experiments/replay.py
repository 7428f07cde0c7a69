r"""Replays a recorded run, exports a student of it, or forks it.

    python -m experiments.replay --smoke
    python -m experiments.replay --workdir=runs/demo
    python -m experiments.replay --workdir=runs/demo --from_frame=300 \
        --to_frame=399
    python -m experiments.replay --workdir=runs/demo --at_frame=300 \
        --export=student.safetensors
    python -m experiments.replay --workdir=runs/demo --fork=runs/adam \
        --from_frame=300 --update=adam --learning_rate=0.001
    python -m experiments.replay --workdir=runs/demo \
        --sweep='learning_rate=0.001,0.003,0.01;a_thresh=0.7,0.8,0.9'

The first takes seconds. The next two run the frames again from the nearest
checkpoint, with the recorded labels and no teacher. They report whether
everything is equal bit for bit (exit code 0) or where it first differs (1). The
fourth writes the student that answered frame 300 and, beside it, its program.
The fifth continues from frame 300 with other flags, as a run of its own; the
same command resumes it. The last runs the stream with every combination at once
and writes a table and heat maps. It asks the teacher, unless the log has the
labels of every frame, as after a run with --eval_every=1 on a stream without
labels.
"""

import dataclasses
import functools
import pathlib
import tempfile
import time

from absl import flags

from experiments import cli, progress, run_flags
from ojd import updates
from ojd.errors import UserError
from ojd.run import (
  compilation,
  export,
  fork,
  recorded_run,
  replay,
  runner,
  sweep,
  sweep_results,
  workdir,
)
from ojd.run import config as config_lib

flags.adopt_module_key_flags(run_flags)
_SMOKE = flags.DEFINE_bool("smoke", False, "make a tiny run and replay it")
_FROM = flags.DEFINE_integer(
  "from_frame", None, "the first frame; empty: that of the run"
)
_TO = flags.DEFINE_integer(
  "to_frame", None, "the last frame; empty: that of the run"
)
_AT = flags.DEFINE_integer(
  "at_frame", None, "the frame whose student --export writes"
)
_EXPORT = flags.DEFINE_string(
  "export", "", "write the student that answered --at_frame to this file"
)
_FORK = flags.DEFINE_string(
  "fork", "", "continue from --from_frame with other flags, in this folder"
)
_SWEEP = flags.DEFINE_string(
  "sweep",
  "",
  "NAME=VALUE,VALUE;...: constants to combine, of " + ", ".join(sweep.NAMES),
)
_OUT = flags.DEFINE_string(
  "out", "", "the folder for a sweep's files; empty: sweep/ in the workdir"
)


def main() -> int:
  """Does what the flags ask for."""
  compilation.enable_cache(compilation.default_cache())
  given = run_flags.given()
  if _SMOKE.value and not given:
    path = pathlib.Path(tempfile.mkdtemp(prefix="ojd-"))
    run_flags.tiny_run(path, overlay=False)
    return _replay(path)
  if not given.get("workdir"):
    raise UserError("--workdir=DIR is missing: the run to replay")
  path = workdir.expand(given.pop("workdir"))
  if _FORK.value:
    others = {"to_frame": _TO, "at_frame": _AT, "export": _EXPORT}
    _refuse("fork", sweep=_SWEEP, out=_OUT, **others)
    return _fork(path, given)
  if _SWEEP.value:
    _refuse("sweep", at_frame=_AT, export=_EXPORT)
  elif _OUT.value:
    raise UserError("--out needs --sweep")
  if given:
    raise UserError(f"--{min(given)} needs --fork")
  if _EXPORT.value or _AT.value is not None:
    _refuse("export", from_frame=_FROM, to_frame=_TO)
    return _export(path)
  return _sweep(path) if _SWEEP.value else _replay(path)


def _refuse(mode, **holders):
  for name, holder in holders.items():
    if holder.value not in (None, ""):
      raise UserError(f"--{name} cannot be used with --{mode}")


def _counter(run):
  """Prints how far the replay is, every few seconds."""
  counters = []

  def report(done, total):
    if not counters:
      counters.append(progress.counter("frame", total))
    counters[0](done, f"of {run.path}")

  return report


def _replay(path):
  run = recorded_run.read(path)
  if run.log.problem:
    cli.note(run.log.problem)
  found = replay.replay(
    *(run, _FROM.value, _TO.value), progress_fn=_counter(run), note_fn=cli.note
  )
  print("\n".join(in_words(run, found)))
  return 0 if found.is_equal else 1


def in_words(run, found: replay.Replayed) -> list[str]:
  """The result of a replay, in a few lines."""
  start = "a checkpoint" if found.start.is_checkpoint else "the beginning"
  live = ""
  if found.seconds_live:
    ratio = found.seconds_live / found.seconds
    live = f", the run itself {found.seconds_live:.1f} s: {ratio:.2f} times"
  lines = [
    f"frames {found.start.t} to {found.end - 1} of {run.path}, from {start}: "
    f"{found.num_keys} key frames, {found.num_updates} updates",
    f"replayed in {found.seconds:.1f} s{live}",
  ]
  if found.is_equal:
    return [
      *lines,
      f"bit-equal: the parameters after {found.num_keys} key frames, the mIoU "
      f"of {found.num_judged} frames, all arrays of {found.num_checkpoints} "
      "checkpoints",
    ]
  if found.divergence:
    lines.append(_divergence(found.divergence))
  if found.largest:
    d = found.largest
    others = f" ({d.num_others} more arrays differ)" if d.num_others else ""
    lines.append(
      f"largest difference at a checkpoint: {d.name} by {d.size:.3g}, after "
      f"{d.t} frames{others}"
    )
  if found.num_judged:
    lines.append(
      f"mean mIoU of {found.num_judged} frames: {found.miou_there:.4f} "
      f"recorded, {found.miou_here:.4f} replayed, a difference of "
      f"{found.miou_here - found.miou_there:+.4f}"
    )
  for words in replay.machine_differences(run):
    lines.append(f"recorded with other {words}")
  return lines


def _divergence(d: replay.Divergence):
  leaves = ""
  if d.leaf:
    more = f" and {d.num_leaves - 1} more" if d.num_leaves > 1 else ""
    leaves = f" in {d.leaf}{more}"
  return f"first divergence: frame {d.t}{leaves}: {d.words}"


def _export(path):
  if not _EXPORT.value or _AT.value is None:
    raise UserError("--export=FILE needs --at_frame=N, and the other way round")
  run = recorded_run.read(path)
  begun = time.perf_counter()
  taken = export.export(
    run, _AT.value, pathlib.Path(_EXPORT.value), note_fn=cli.note
  )
  print(
    f"{taken.params}: the student that answered frame {_AT.value}, "
    f"{taken.num_params} parameters; --init={taken.params} begins with it\n"
    f"{taken.program}: its program for {taken.size}, to be read by jax "
    f"{taken.jax} and those of the {taken.months} months after it\n"
    f"took {time.perf_counter() - begun:.1f} s"
  )
  return 0


def _sweep(path):
  grid = sweep.parse(_SWEEP.value)
  run = recorded_run.read(path)
  begun = time.perf_counter()
  trials = sweep.sweep(
    *(run, grid, _FROM.value, _TO.value),
    progress_fn=_counter(run),
    note_fn=cli.note,
  )
  out = workdir.expand(_OUT.value) if _OUT.value else path / "sweep"
  own = dataclasses.asdict(run.config)
  if own["learning_rate"] is None:
    own["learning_rate"] = updates.bind(own["update"]).options["learning_rate"]
  title = f"{run.config.stream}, {trials[0].num_frames} frames"
  sweep_results.write(trials, own, title, out)
  print(sweep_results.table(trials))
  spent = time.perf_counter() - begun
  print(
    f"{len(trials)} combinations, {trials[0].num_frames} frames: "
    f"{spent:.1f} s\n"
    f"{out / sweep_results.TABLE}, {out / sweep_results.HEAT_MAP}"
  )
  return 0


def _fork(path, given):
  if _FROM.value is None:
    raise UserError("--fork needs --from_frame=N, the frame to continue from")
  branch = fork.open_fork(path, _FROM.value)
  given = given | {"workdir": _FORK.value}
  config = fork.child_config(branch.parent.config, given)
  config_lib.check(config)
  place = {"workdir": path, "fork": _FORK.value, "from_frame": branch.t}
  words = [config_lib.word(name, value) for name, value in place.items()]
  words += [config_lib.word(*x) for x in given.items() if x[0] != "workdir"]
  command = " ".join(["python -m experiments.replay", *words])
  run = functools.partial(runner.run, config, command, fork=branch)
  outcome, exit_code = progress.follow(run)
  if outcome.status is workdir.Status.FINISHED:
    print(f"{config.workdir} holds this fork already, finished:")
  print(progress.in_words(outcome.summary))
  num_keys = outcome.summary["num_key_frames"]
  num_known = outcome.summary["num_cached_labels"]
  print(
    f"a fork of {path} at frame {branch.t}; {num_known} answers were on record"
    f", {num_keys} key frames"
  )
  print(f"report: {config.workdir}/{workdir.REPORT}/index.html")
  return exit_code


if __name__ == "__main__":
  cli.run(main)

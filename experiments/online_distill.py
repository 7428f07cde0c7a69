r"""Distils a teacher into a student, live, on one stream.

    python -m experiments.online_distill --smoke
    python -m experiments.online_distill --workdir=runs/street \
        --stream=synthetic:street --height=192 --width=320

The first finishes in under a minute. Both print the run's mean IoU, key frames
and speed-up, and leave a folder with metrics.jsonl, summary.json, overlay.mp4
and report/index.html. The same command on a finished folder says so.
"""

import sys
import tempfile

from absl import flags

from experiments import cli, progress, run_flags, serve_flags
from ojd.run import config as config_lib
from ojd.run import runner, workdir

flags.adopt_module_key_flags(run_flags)
flags.adopt_module_key_flags(serve_flags)
_SMOKE = flags.DEFINE_bool("smoke", False, "a tiny run, to see that it works")

_SMOKE_DEFAULTS = {"height": 64, "width": 96, "num_frames": 24}


def main() -> int:
  """Runs what the flags ask for and prints what came of it."""
  config = run_flags.run_config(_SMOKE_DEFAULTS if _SMOKE.value else None)
  if _SMOKE.value and not config.workdir:
    config = run_flags.with_workdir(config, tempfile.mkdtemp(prefix="ojd-"))
  config_lib.check(config)
  with serve_flags.live_board(_note) as board:
    outcome, exit_code = _run(config, board)
  if outcome.status is workdir.Status.FINISHED:
    print(f"{config.workdir} holds this run already, finished:")
  print(progress.in_words(outcome.summary))
  print(f"report: {config.workdir}/{workdir.REPORT}/index.html")
  return exit_code


def _run(config, board):
  """What came of the run, and the exit code."""
  interrupt, watcher = cli.Interrupt(), progress.watcher()
  try:
    outcome = runner.online_distill(
      config,
      progress_fn=watcher,
      should_stop=interrupt.is_wanted,
      note_fn=_note,
      board=board,
    )
  finally:
    watcher.close()
  return outcome, interrupt.exit_code()


def _note(note):
  print(note, file=sys.stderr)


if __name__ == "__main__":
  cli.run(main)

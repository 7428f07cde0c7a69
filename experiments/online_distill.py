r"""Distils a teacher into a student, live, on one stream.

    python -m experiments.online_distill --smoke
    python -m experiments.online_distill --workdir=runs/street \
        --stream=synthetic:street --height=192 --width=320

The first finishes in under a minute. Both print the run's mean IoU, key frames
and speed-up, and leave a folder with metrics.jsonl, summary.json, overlay.mp4
and report/index.html. The same command on a finished folder says so.
"""

import functools
import tempfile

from absl import flags

from experiments import cli, progress, run_flags, serve_flags
from ojd.run import config as config_lib
from ojd.run import runner, workdir

flags.adopt_module_key_flags(run_flags)
flags.adopt_module_key_flags(serve_flags)
_SMOKE = flags.DEFINE_bool("smoke", False, "a tiny run, to see that it works")


def main() -> int:
  """Runs what the flags ask for and prints the result."""
  config = run_flags.run_config(run_flags.SMOKE if _SMOKE.value else None)
  if _SMOKE.value and not config.workdir:
    config = run_flags.with_workdir(config, tempfile.mkdtemp(prefix="ojd-"))
  config_lib.check(config)
  with serve_flags.live_display(cli.note) as display:
    run = functools.partial(runner.online_distill, config, display=display)
    outcome, exit_code = progress.follow(run)
  if outcome.status is workdir.Status.FINISHED:
    print(f"{config.workdir} holds this run already, finished:")
  print(progress.in_words(outcome.summary))
  print(f"report: {config.workdir}/{workdir.REPORT}/index.html")
  return exit_code


if __name__ == "__main__":
  cli.run(main)

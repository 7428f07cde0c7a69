r"""Records a teacher's answers to a stream; runs can then use them for free.

    python -m experiments.record --smoke
    python -m experiments.record --stream=synthetic:street \
        --teacher=ground_truth --out=recordings/street
    python -m experiments.online_distill --workdir=runs/replayed \
        --stream=synthetic:street --teacher=recorded:path=recordings/street

The first takes seconds; the second about ten, and prints a size of about 1 kB a
frame. After an interrupt the same command resumes after the last frame.
--ask_every=8 asks about every eighth frame only; a run that needs another one
counts a teacher failure and continues. --start_frame and --every choose the
frames there are: such a recording is for runs with the same two flags.
"""

import dataclasses
import tempfile

from absl import flags

from experiments import cli, progress, run_flags
from ojd.errors import UserError
from ojd.run import build, recorder
from ojd.run.config import RunConfig
from ojd.teachers import base as teachers

flags.adopt_module_key_flags(run_flags)
_OUT = flags.DEFINE_string("out", "", "the folder for the recording")
_ASK_EVERY = flags.DEFINE_integer("ask_every", 1, "ask about every n-th frame")
_SMOKE = flags.DEFINE_bool("smoke", False, "a tiny run, to see that it works")

# Flags of a run that mean something here, beside the teacher's own; of those,
# what is about waiting does not.
_FLAGS_USED = (
  *("stream", "start_frame", "every", "num_frames"),
  *("height", "width"),
)
_FLAGS_OF_WAITING = ("teacher_process", "teacher_timeout")


def _check(config: RunConfig):
  """Refuses flags that would be ignored, or that are out of range."""
  for field in dataclasses.fields(config):
    is_used = field.name in _FLAGS_USED or field.name.startswith("teacher")
    is_used &= field.name not in _FLAGS_OF_WAITING
    if not is_used and getattr(config, field.name) != field.default:
      raise UserError(f"--{field.name} is not used by a recording")
  for name, value in (
    ("num_frames", config.num_frames),
    ("ask_every", _ASK_EVERY.value),
  ):
    if value is not None and value < 1:
      raise UserError(f"--{name}={value}: at least 1")
  if not _OUT.value and not _SMOKE.value:
    raise UserError("--out=DIR is missing: the folder for the recording")


def _size(progress):
  if not progress.num_records:
    return "nothing recorded"
  return f"{progress.num_bytes / progress.num_records:.0f} bytes a frame"


_VIEW = progress.View(
  count=lambda made: (made.t + 1, made.total),
  text=_size,
  news=lambda made: made.problem and f"warning: {made.problem}",
)


def main() -> int:
  """Records as the flags say, and prints the result."""
  config = run_flags.run_config(run_flags.SMOKE if _SMOKE.value else None)
  _check(config)
  out = _OUT.value or tempfile.mkdtemp(prefix="ojd-")
  interrupt = cli.Interrupt()
  stream = build.open_stream(config)
  done = recorder.record(
    stream,
    build.make_teacher(config, stream.spec),
    out,
    teacher_name=teachers.without_device(config.teacher),
    every=_ASK_EVERY.value,
    num_frames=config.num_frames,
    progress_fn=progress.Log(_VIEW),
    should_stop=interrupt.is_wanted,
  )
  if not done.num_records and not interrupt.is_wanted():
    raise RuntimeError("the teacher answered no frame")
  state = "stopped" if interrupt.is_wanted() else "done"
  print(
    f"{state}: {done.num_records} frames recorded, {_size(done)}"
    + (f"; went on from frame {done.start}" if done.start else "")
    + (f"; {done.num_failures} without an answer" if done.num_failures else "")
  )
  print(f"replay it with --teacher=recorded:path={out}")
  return interrupt.exit_code()


if __name__ == "__main__":
  cli.run(main)

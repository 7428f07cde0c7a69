"""The flags of a run, shared by the binaries; one per field of RunConfig."""

import dataclasses
import pathlib
import typing

from absl import flags

from ojd import specs, systems, updates
from ojd.models import student
from ojd.network import conditions
from ojd.run.config import MASKS, RunConfig
from ojd.streams.base import SCHEMES
from ojd.teachers import base as teachers

_HELP = {
  "stream": "where frames come from: "
  + ", ".join(f"{s}:..." for s in SCHEMES)
  + ", the path of a video file",
  "teacher": "labels key frames: package.module:factory, or "
  "NAME[:PRESET][:OPTION=VALUE]...",
  "teacher_process": "run the teacher in a process of its own, which is "
  "restarted when it dies or hangs",
  "teacher_timeout": "seconds after which the process of --teacher_process "
  "counts as hung; ten times that for its start and its first answer",
  "async_teacher": "do not wait for the teacher: the student goes on as it is "
  "and learns when the answer comes. No two runs are equal then. A stream "
  "without labels is judged by these answers, unless --eval_every is given",
  "system": "the method and its options, NAME[:PRESET][:OPTION=VALUE]...\n"
  + specs.describe(systems.METHODS)
  + "\n",
  "link": "simulate a network between the teacher, on a server, and the "
  "student, on a device, in the time of the stream: ideal, or NAME=VALUE,... "
  "of " + ", ".join(conditions.NAMES),
  "workdir": "the folder for the files of the run",
  "classes": "the classes that the student separates, as "
  "'person;auto=car,bus,truck'; empty: all of the teacher's",
  "height": "height of the student's frames; empty: the stream's",
  "width": "width of the student's frames; empty: the stream's",
  "start_frame": "the first frame of the stream to play, from 0",
  "every": "play every n-th frame from --start_frame on, as a stream of fewer "
  "frames a second",
  "num_frames": "number of frames to run; empty: to the end of the stream",
  "seed": "seed of the student's random parameters",
  "a_thresh": "accuracy from which on no update is made. This and the next "
  "four flags are options of the system; empty: the system's default",
  "delta_min": "least frames between teacher calls",
  "delta_max": "most frames between teacher calls",
  "u_max": "most updates on a key frame",
  "u_min": "least updates on a key frame",
  "update": "the gradient step and its options, NAME[:OPTION=VALUE]...; empty: "
  "sgd, or the system's own.\n" + specs.describe(updates.STEPS) + "\n",
  "learning_rate": "learning rate of the gradient step; empty: the step's own",
  "precision": "what the student computes in: float32, or bfloat16 for GPUs "
  "(parameters, statistics and loss stay float32)",
  "model": "the student's network and its options, NAME[:OPTION=VALUE]...\n"
  + specs.describe(student.MODELS)
  + "\n",
  "init": "the student's first parameters: random, bundled, or a file of "
  "experiments.pretrain or train_delta",
  "eval_every": "judge every n-th frame, 0 never; empty: each frame by the "
  "stream's own labels, else each 30th by the teacher",
  "checkpoint_every": "key frames between checkpoints, from which an "
  "interrupted run resumes; 0: no checkpoints",
  "overlay": "write overlay.mp4, sample frames, and pictures of key frames "
  "before and after learning",
  "save_masks": "write the student's class maps in the size of the source: "
  "png, a file for each frame; video, one lossless masks.mkv; --save_masks "
  "alone is png",
  "boxes": "write a box around each component of the student's classes, in "
  "COCO's format: boxes.jsonl, boxes.json",
  "areas": "write the share of each class in each frame: areas.jsonl",
  "tensorboard": "write the metrics for TensorBoard; needs ojd[tensorboard]",
  "wandb": "send the metrics to Weights & Biases, or with WANDB_MODE=offline "
  "only write them; needs ojd[wandb]",
}
_DEFINE = {
  str: flags.DEFINE_string,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  bool: flags.DEFINE_bool,
}


_CHOICES = {"save_masks": MASKS}


class _Switch(flags.EnumFlag):
  """A choice that is a switch too: --flag is the second, --noflag the first."""

  def __init__(self, name, default, about, choices):
    super().__init__(name, default, about, choices)
    self.boolean = True  # absl then takes it without a value

  def parse(self, argument):
    off, on = self.parser.enum_values[:2]
    super().parse({"true": on, "false": off}.get(argument, argument))


class _Teacher(flags.Flag):
  """Its help is made where it is read: teachers' modules import torch."""

  @property
  def help(self):
    return f"{self._about}\n{specs.describe(teachers.TEACHERS)}\n"

  @help.setter
  def help(self, about):
    self._about = about


def _define(field):
  if field.name == "teacher":
    about, parser = _HELP["teacher"], flags.ArgumentParser()
    serializer = flags.ArgumentSerializer()
    return flags.DEFINE_flag(
      _Teacher(parser, serializer, "teacher", field.default, about)
    )
  if field.name in _CHOICES:
    name, choices = field.name, _CHOICES[field.name]
    return flags.DEFINE_flag(_Switch(name, field.default, _HELP[name], choices))
  kinds = typing.get_args(field.type) or (field.type,)
  return _DEFINE[kinds[0]](field.name, field.default, _HELP[field.name])


_HOLDERS = {f.name: _define(f) for f in dataclasses.fields(RunConfig)}


# Of a run that takes seconds, to see that all works.
SMOKE = {"height": 64, "width": 96, "num_frames": 24}


def run_config(defaults: dict[str, typing.Any] | None = None) -> RunConfig:
  """The config of the flags given.

  Args:
    defaults: replaces the defaults of flags that were not given.
  """
  values = {name: holder.value for name, holder in _HOLDERS.items()}
  for name, value in (defaults or {}).items():
    if not _HOLDERS[name].present:
      values[name] = value
  return RunConfig(**values)


def tiny_run(path: pathlib.Path, **flags: typing.Any) -> None:
  """Leaves the folder of a run that took seconds; some flags may be others."""
  # Imported here: not every binary with these flags runs a loop.
  from ojd.run import runner

  about = {"stream": "synthetic:sports", "teacher": "ground_truth", **SMOKE}
  runner.online_distill(RunConfig(**about | flags, workdir=str(path)))


def given() -> dict[str, typing.Any]:
  """The flags that were given, by name."""
  return {n: holder.value for n, holder in _HOLDERS.items() if holder.present}


def with_workdir(config: RunConfig, path: str) -> RunConfig:
  """The same config in another folder."""
  return dataclasses.replace(config, workdir=path)

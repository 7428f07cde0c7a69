"""The flags of a run, checked before any file is written."""

import dataclasses
import importlib
import math
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from ojd import specs, systems, updates
from ojd.errors import UserError
from ojd.models import optical_flow, pretrained, student
from ojd.network import conditions, messages
from ojd.run import trackers
from ojd.specs import Bound
from ojd.streams import compose

# --init is one of these, or a file of a pretrained student.
INITS = ("random", "bundled")
MASKS = ("none", "png", "video")
# Options of systems that have a flag of their own: the paper's constants.
CONSTANTS = ("a_thresh", "delta_min", "delta_max", "u_max", "u_min")
# Flags that some systems do not use.
OF_LEARNING = (*CONSTANTS, "update", "learning_rate")


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """The flags of `online_distill`, by name.

  None stands for the default of the part that the flag sets. The defaults of a
  method are in the signature of its factory.
  """

  stream: str = "synthetic:street"
  teacher: str = "mask_rcnn_tiny"
  teacher_process: bool = False
  teacher_timeout: float = 60.0
  async_teacher: bool = False
  link: str = ""
  system: str = "jit"
  workdir: str = ""
  classes: str = ""
  height: int | None = None
  width: int | None = None
  start_frame: int = 0
  every: int = 1
  num_frames: int | None = None
  seed: int = 0
  a_thresh: float | None = None
  delta_min: int | None = None
  delta_max: int | None = None
  u_max: int | None = None
  u_min: int | None = None
  update: str | None = None
  learning_rate: float | None = None
  precision: str = "float32"
  model: str = "jitnet"
  init: str = "bundled"
  eval_every: int | None = None
  checkpoint_every: int = 16
  overlay: bool = True
  save_masks: str = "none"
  boxes: bool = False
  areas: bool = False
  tensorboard: bool = False
  wandb: bool = False


def command(module: str, config: RunConfig) -> str:
  """The command line that repeats a run."""
  words = [f"python -m {module}"]
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if value != field.default:
      words.append(word(field.name, value))
  return " ".join(words)


def word(name: str, value: Any) -> str:
  """A flag as it is typed on the command line."""
  if isinstance(value, bool):
    return f"--{'' if value else 'no'}{name}"
  return shlex.quote(f"--{name}={value}")


def bound_system(config: RunConfig) -> Bound:
  """The system of a config with all its options."""
  given = {name: getattr(config, name) for name in CONSTANTS}
  given = {name: value for name, value in given.items() if value is not None}
  return systems.bind(config.system, given)


def target(config: RunConfig) -> float:
  """The target accuracy of the system, or that of `jit` if it has none."""
  options = bound_system(config).options
  return options.get("a_thresh", systems.bind("jit").options["a_thresh"])


def bound_update(config: RunConfig) -> Bound | None:
  """The gradient step of a config; None if its system trains nothing."""
  own, rate = systems.update_of(bound_system(config)), config.learning_rate
  if own is None:
    for name in ("update", "learning_rate"):
      if getattr(config, name) is not None:
        raise UserError(
          f"--{name}={getattr(config, name)}: --system={config.system} trains "
          "nothing during the run"
        )
    return None
  if config.update is None and rate is not None:
    own = updates.bind(own).name  # the flag has the rate
  return updates.bind(config.update or own, rate)


def settled(config: RunConfig) -> RunConfig:
  """Fills in the gradient step of the system if the config has none."""
  update = bound_update(config)
  if config.update is not None or update is None:
    return config
  text = str(update)
  if config.learning_rate is not None:
    text = update.name
  return dataclasses.replace(config, update=text)


def options(config: RunConfig) -> dict[str, dict[str, Any]]:
  """All options of system, update and model of a config, with defaults."""
  bound = {
    "system": bound_system(config),
    "update": bound_update(config),
    "model": student.bind(config.model),
  }
  return {kind: dict(x.options) for kind, x in bound.items() if x is not None}


def with_option(config: RunConfig, name: str, value: Any) -> RunConfig:
  """Returns the config with a flag, or an option of its system, set."""
  spec = specs.parse(config.system, "system")
  options = dict(spec.options)
  is_flag = name in {field.name for field in dataclasses.fields(config)}
  if is_flag and name not in options:
    return dataclasses.replace(config, **{name: value})
  pieces = [spec.name] + ([spec.preset] if spec.preset else [])
  options[name] = specs.as_text(value)
  pieces += [f"{key}={word}" for key, word in options.items()]
  return dataclasses.replace(config, system=":".join(pieces))


def without_unused(
  config: RunConfig, kept: Mapping[str, Any] | set[str] = frozenset()
) -> RunConfig:
  """Resets the constants that the system of a config does not use.

  Args:
    config: with a new system, and constants that were set for another one.
    kept: names of flags that were given for the new system; they are not reset,
      so that `check` refuses those that it does not use.
  """
  bound = systems.bind(config.system)
  names = [name for name in CONSTANTS if name not in bound.options]
  if systems.update_of(bound) is None:  # `delta:frozen` has its base's
    names = OF_LEARNING
  gone = {name: None for name in names if name not in kept}
  return dataclasses.replace(config, **gone)


def check(config: RunConfig) -> None:
  """Raises a UserError that names the first invalid flag."""
  if not config.workdir:
    raise UserError("--workdir=DIR is missing: the folder of the run")
  system = bound_system(config)
  bound_update(config)
  if "flow" in system.options:
    _check_flow(system.options["flow"])
  _check_name("precision", config.precision, student.PRECISIONS)
  _check_name("save_masks", config.save_masks, MASKS)
  model = student.bind(config.model)
  _check_bundled(config, model)
  if config.init not in INITS and not pathlib.Path(config.init).is_file():
    raise UserError(
      f"--init={config.init}: no such file; give one, or {' or '.join(INITS)}"
    )
  _check_link(config, system)
  compose.check_window(config.start_frame, config.every)
  _check_least("num_frames", config.num_frames, 1)
  _check_least("eval_every", config.eval_every, 0)
  _check_least("checkpoint_every", config.checkpoint_every, 0)
  if not 0 < config.teacher_timeout < math.inf:
    raise UserError(
      f"--teacher_timeout={config.teacher_timeout}: seconds, above 0 and finite"
    )
  if not 0 <= config.seed < 2**31:
    raise UserError(f"--seed={config.seed}: from 0 to {2**31 - 1}")
  for name in trackers.PACKAGES:
    if getattr(config, name):
      trackers.require(name)


def _check_flow(flow):
  """Raises a UserError unless `make_flow` accepts the text."""
  name, _, argument = flow.partition(":")
  if name == "raft" and argument:
    if not pathlib.Path(argument).expanduser().is_file():
      raise UserError(f"flow={flow}: there is no such file of weights")
  else:
    optical_flow.as_flow(flow)


def make_flow(flow: str) -> optical_flow.HostFlow:
  """Makes the optical flow of an option, `dis:PRESET` or `raft:FILE`."""
  _check_flow(flow)
  name, _, argument = flow.partition(":")
  if name != "raft":
    return optical_flow.as_flow(flow)
  # RAFT needs torch, which is imported in the room of the teachers alone.
  raft = importlib.import_module("ojd.teachers.raft")
  return raft.make_flow(pathlib.Path(argument).expanduser())


def _check_link(config, system):
  """Raises a UserError if the run cannot use a simulated network."""
  if not config.link:
    return
  upload = conditions.parse(config.link).upload
  name = f"--link: --system={config.system}"
  if system.row.remote is None:
    raise UserError(f"{name} has no student to send to a device")
  if system.options.get("norm") == "key_frame":
    raise UserError(f"{name} needs norm=frame")
  if config.async_teacher:
    raise UserError(
      "--link: a simulated network never waits for the teacher; "
      "drop --async_teacher"
    )
  if upload.codec == messages.H264 and not system.row.remote.is_batched:
    raise UserError(
      f"{name} sends single frames, not a clip; give codec=jpeg or codec=raw"
    )


def _check_bundled(config, model):
  """Raises a UserError if there is no bundled student of this network."""
  if config.init != "bundled":
    return
  if model.name in pretrained.BUNDLED and not model.chosen:
    return
  known = " and ".join(f"--model={name}" for name in pretrained.BUNDLED)
  raise UserError(
    f"--init=bundled is for {known}, not for --model={config.model}; give "
    "--init=random or --init=FILE"
  )


def _check_name(flag, name, known):
  if name not in known:
    raise UserError(f"--{flag}={name}: unknown; known are {', '.join(known)}")


def _check_least(flag, value, least):
  if value is not None and value < least:
    raise UserError(f"--{flag}={value}: at least {least}")

"""What a run is asked for, checked before anything is touched."""

import dataclasses
import math
import pathlib

from ojd import systems, updates
from ojd.errors import UserError
from ojd.models import pretrained, student
from ojd.models.delta import changes, skip
from ojd.network import conditions, messages
from ojd.run import flows, trackers
from ojd.streams import compose
from ojd.systems import factories, jit

# Or a file that was made by training a student beforehand.
INITS = ("random", "bundled")
MASKS = ("none", "png", "video")
# What is in seconds, and the most it may be.
_LEAST = 0.001
_SECONDS = {"sampling_rate": 1e3, "train_period": 1e6, "horizon": 1e6}


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """The flags of `online_distill`, by their names; None is "as it comes"."""

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
  a_thresh: float = 0.8
  delta_min: int = 8
  delta_max: int = 64
  u_max: int = 8
  u_min: int = 0
  update: str | None = None  # the system's own
  learning_rate: float | None = None
  sampling_rate: float = 1.0
  train_period: float = 10.0
  horizon: float = 240.0
  iterations: int = 20
  batch_size: int = 8
  refresh_every: int | None = None  # the system's own
  refresh_change: float | None = None
  follow: bool | None = None
  gamma: int = 4
  policy: str = "out"
  skip_eps: float = 0.1
  skip_gate: str = "input"
  skip_memory: str = "reference"
  skip_block: int = 1
  quirks: bool = False
  norm: str = "frame"
  precision: str = "float32"
  model: str = "jitnet"
  flow: str = flows.DEFAULT
  init: str = "bundled"
  eval_every: int | None = None
  checkpoint_every: int = 16
  overlay: bool = True
  save_masks: str = "none"
  boxes: bool = False
  areas: bool = False
  tensorboard: bool = False
  wandb: bool = False

  @property
  def settings(self) -> systems.Settings:
    """The constants of the system but for what depends on the stream."""
    names = set(systems.Settings._fields) - {"flow", "fps", "trained"}
    return systems.Settings(**{name: getattr(self, name) for name in names})


def settled(config: RunConfig) -> RunConfig:
  """The config with what its system chooses, where that was left to it."""
  if config.update is not None:
    return config
  method, rate = systems.find(config.system), config.learning_rate
  rate = method.learning_rate if rate is None else rate
  return dataclasses.replace(config, update=method.update, learning_rate=rate)


def check(config: RunConfig) -> None:
  """Raises a UserError that names the first flag out of its range."""
  if not config.workdir:
    raise UserError("--workdir=DIR is missing: where should the run go?")
  method = systems.find(config.system)
  flows.check(config.flow)
  if config.update is not None:
    updates.bind(config.update, config.learning_rate)
  _check_name("norm", config.norm, jit.NORM_MODES)
  _check_name("precision", config.precision, student.PRECISIONS)
  _check_name("save_masks", config.save_masks, MASKS)
  model = student.bind(config.model)
  _check_bundled(config, model)
  if config.init not in INITS and not pathlib.Path(config.init).is_file():
    raise UserError(
      f"--init={config.init}: no such file; also known are {', '.join(INITS)}"
    )
  _check_link(config, method)
  if config.norm == "key_frame" and "norm" not in method.uses:
    raise UserError(
      f"--norm=key_frame: --system={config.system} has no key frames to norm by"
    )
  if not 0.0 <= config.a_thresh <= 1.0:
    raise UserError(f"--a_thresh={config.a_thresh}: a mean IoU is 0 to 1")
  _check_least("delta_min", config.delta_min, 1)
  if "delta_max" in method.uses and config.delta_max < config.delta_min:
    raise UserError(
      f"--delta_max={config.delta_max} is below --delta_min={config.delta_min}"
    )
  # Twice a stride is still an int32.
  _check_most("delta_min", config.delta_min, 2**30 - 1)
  _check_most("delta_max", config.delta_max, 2**30 - 1)
  _check_least("u_max", config.u_max, 0)
  _check_most("u_max", config.u_max, 10**6)
  if not 0 <= config.u_min <= config.u_max:
    raise UserError(f"--u_min={config.u_min}: from 0 to --u_max={config.u_max}")
  compose.check_window(config.start_frame, config.every)
  _check_least("num_frames", config.num_frames, 1)
  _check_least("eval_every", config.eval_every, 0)
  _check_least("checkpoint_every", config.checkpoint_every, 0)
  rate = config.learning_rate
  if rate is not None and not 0 < rate < math.inf:
    raise UserError(f"--learning_rate={rate}: above 0 and finite")
  for flag, most in _SECONDS.items():
    value = getattr(config, flag)
    if not _LEAST <= value <= most:
      raise UserError(f"--{flag}={value}: from {_LEAST} to {most:g}")
  for flag in ("iterations", "batch_size"):
    _check_least(flag, getattr(config, flag), 1)
    _check_most(flag, getattr(config, flag), 10**6)
  _check_between(config, method)
  if not 0 < config.teacher_timeout < math.inf:
    raise UserError(
      f"--teacher_timeout={config.teacher_timeout}: seconds, above 0 and finite"
    )
  if not 0 <= config.seed < 2**31:
    raise UserError(f"--seed={config.seed}: from 0 to {2**31 - 1}")
  for name in trackers.PACKAGES:
    if getattr(config, name):
      trackers.require(name)


def _check_between(config, method):
  """Raises where no student can be of two speeds as is asked for."""
  _check_least("refresh_every", config.refresh_every, 1)
  if config.refresh_every is not None:
    _check_most("refresh_every", config.refresh_every, 2**30 - 1)
  change = config.refresh_change
  if change is not None and not 0 <= change <= 255:
    raise UserError(f"--refresh_change={change}: grey levels, 0 to 255")
  _check_least("gamma", config.gamma, 1)
  _check_name("policy", config.policy, changes.POLICIES)
  if not 0 <= config.skip_eps < math.inf:
    raise UserError(f"--skip_eps={config.skip_eps}: 0 or more, and finite")
  _check_name("skip_gate", config.skip_gate, factories.SKIP_GATES)
  _check_name("skip_memory", config.skip_memory, skip.MEMORIES)
  if config.skip_block not in skip.BLOCKS:
    raise UserError(
      f"--skip_block={config.skip_block}: one of "
      + ", ".join(map(str, skip.BLOCKS))
    )
  is_forgetful = config.skip_memory == "forget"
  if config.quirks and "skip_memory" in method.uses and not is_forgetful:
    raise UserError("--quirks: the authors' gates are --skip_memory=forget")


def _check_link(config, method):
  """Raises where there can be no network between device and server."""
  if not config.link:
    return
  upload = conditions.parse(config.link).upload
  name = f"--link: --system={config.system}"
  if method.remote is None:
    raise UserError(f"{name} has no student that could be sent to a device")
  if config.norm == "key_frame":
    raise UserError(f"{name} over a link needs --norm=frame")
  if config.async_teacher:
    raise UserError(
      "--link: its server is waited for by no one as it is; "
      "drop --async_teacher"
    )
  if upload.codec == messages.H264 and not method.remote.is_batched:
    raise UserError(
      f"{name} sends frames one by one, not as a clip; give "
      "codec=jpeg or codec=raw"
    )


def _check_bundled(config, model):
  """Raises where no bundled student is of this network."""
  if config.init != "bundled":
    return
  if model.name in pretrained.BUNDLED and not model.chosen:
    return
  known = " and ".join(f"--model={name}" for name in pretrained.BUNDLED)
  raise UserError(
    f"--init=bundled is of {known}, not of --model={config.model}; take "
    "--init=random, or a file"
  )


def _check_name(flag, name, known):
  if name not in known:
    raise UserError(f"--{flag}={name}: unknown; known are {', '.join(known)}")


def _check_least(flag, value, least):
  if value is not None and value < least:
    raise UserError(f"--{flag}={value}: at least {least}")


def _check_most(flag, value, most):
  if value > most:
    raise UserError(f"--{flag}={value}: at most {most}")

"""Methods: one file each, and the table of their names.

A factory takes the student, the gradient step and its options as keywords; a
text by the grammar of `ojd.specs` names a method and its options:
`jit:a_thresh=0.9`, `flow:fast`, `ams:horizon=120:batch_size=4`.
"""

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ojd import specs
from ojd.distill import System
from ojd.errors import UserError
from ojd.models.student import Student
from ojd.specs import Bound
from ojd.systems import delta as delta_lib
from ojd.systems import offline_oracle as oracle_lib
from ojd.systems.ams import ams
from ojd.systems.baselines import copy_last, flow, teacher
from ojd.systems.delta import delta, skip
from ojd.systems.jit import fixed, frozen, jit, jit_plus, scheduled
from ojd.systems.jit_flow import jit_flow
from ojd.systems.offline_oracle import offline_oracle
from ojd.systems.osvos import osvos
from ojd.systems.shadowtutor import shadowtutor
from ojd.types import Costs
from ojd.updates.step import Tx

__all__ = [
  "METHODS",
  "Method",
  "ams",
  "bind",
  "copy_last",
  "create",
  "delta",
  "fixed",
  "flow",
  "frozen",
  "jit",
  "jit_flow",
  "jit_plus",
  "offline_oracle",
  "osvos",
  "scheduled",
  "shadowtutor",
  "skip",
  "teacher",
]


class Remote(NamedTuple):
  """How a method works when a network separates student and teacher."""

  # (options, frames a second) -> frames from key to key, as both ends of a
  # network know them beforehand.
  first_interval: Callable[[Mapping[str, Any], float], int]
  codec: str = "raw"  # of key frames, of network.messages
  dtype: str = "float32"  # of what is learned
  # Frames travel together, when there is a training round; else at once.
  is_batched: bool = False
  waits: bool = True  # for an update, once the least stride has gone by


class Preset(NamedTuple):
  """The options of a word after the method's name."""

  options: Mapping[str, Any] = types.MappingProxyType({})
  costs: Costs | None = None  # None: those of the method
  update: str = ""  # the gradient step where none is given; empty: the method's


class Method(NamedTuple):
  """A row of the table."""

  factory: Callable[..., System]  # (student, gradient step, **options)
  presets: Mapping[str, Preset] = types.MappingProxyType({})
  # The gradient step where none is given; None: nothing is trained live.
  update: str | None = "sgd"
  costs: Costs = Costs()
  remote: Remote | None = None  # None: device and server are one
  # Trains a student on the whole stream before the run, from which the system
  # begins; False where it was stopped.
  prepare: Callable[[oracle_lib.Preparation], bool] | None = None
  check: Callable[[Bound], None] = lambda bound: None  # options that clash


_BACKOFF = Remote(lambda options, fps: options["delta_min"])
# Of its flow the paper gives speed-ups alone, 2.2 with the teacher on every 8th
# frame and 3.2 on every 16th: 300 x 8 / (300 + 7 x 113) and
# 300 x 16 / (300 + 15 x 80).
_SLOW_FLOW, _FAST_FLOW = Costs(predict=113.0), Costs(predict=80.0)
_STUDENT_AND_FLOW = Costs(predict=_SLOW_FLOW.predict + Costs().predict)
# An update looks at eight frames.
_AMS = Costs(update=8 * Costs().update)
# Half a minute of training an interval; the paper's hour for two minutes of
# video is all of that.
_OSVOS = Costs(predict=0.0, update=0.0, training=30_000.0)
_BASES = {
  "plus": Preset({"base": "jit_plus"}, update="fast_head"),
  "frozen": Preset({"base": "frozen"}),
}


def _check_backoff(bound):
  """Refuses a least stride above the most."""
  least, most = bound.options["delta_min"], bound.options["delta_max"]
  if most < least:
    words = f"delta_max={most} is below delta_min={least}"
    raise UserError(f"--system={bound}: {words}")
  _check_updates(bound)


def _check_updates(bound):
  least, most = bound.options["u_min"], bound.options["u_max"]
  if most < least:
    raise UserError(f"--system={bound}: u_min={least} is above u_max={most}")


def _check_delta(bound):
  _check_backoff(bound)
  delta_lib.check(bound)


METHODS: dict[str, Method] = {
  "jit": Method(jit, remote=_BACKOFF, check=_check_backoff),
  "jit_plus": Method(
    jit_plus, update="fast_head", remote=_BACKOFF, check=_check_backoff
  ),
  "jit_flow": Method(
    jit_flow,
    {"plus": _BASES["plus"]},
    costs=_STUDENT_AND_FLOW,
    check=_check_backoff,
  ),
  "shadowtutor": Method(
    shadowtutor,
    {"full": Preset(update="adam:learning_rate=0.01")},
    update="partial_adam",
    remote=_BACKOFF,
    check=_check_backoff,
  ),
  "ams": Method(
    ams,
    {
      "steady": Preset({"adaptive_sampling": False}),
      "slow": Preset({"adaptive_training": True}),
      "one_time": Preset(
        {"adaptive_sampling": False, "one_time": True}, update="adam"
      ),
    },
    update="top_k",
    costs=_AMS,
    remote=Remote(
      lambda options, fps: max(1, round(fps / options["sampling_rate"])),
      codec="h264",
      dtype="float16",
      is_batched=True,
      waits=False,
    ),
  ),
  "fixed": Method(
    fixed,
    remote=Remote(lambda options, fps: options["stride"]),
    check=_check_updates,
  ),
  # A device asks for no frame, and so its first interval decides nothing.
  "frozen": Method(frozen, update=None, remote=Remote(lambda options, fps: 8)),
  "teacher": Method(teacher, update=None),
  "copy_last": Method(copy_last, update=None, costs=Costs(predict=0.0)),
  "flow": Method(
    flow,
    {
      "slow": Preset({"stride": 8}),
      "fast": Preset({"stride": 16, "flow": "dis:ultrafast"}, _FAST_FLOW),
    },
    update=None,
    costs=_SLOW_FLOW,
  ),
  "osvos": Method(osvos, costs=_OSVOS),
  "offline_oracle": Method(
    offline_oracle, update=None, prepare=oracle_lib.prepare
  ),
  "delta": Method(delta, _BASES, check=_check_delta),
  "skip": Method(skip, _BASES, check=_check_delta),
}


def bind(
  text: str, given: Mapping[str, Any] = types.MappingProxyType({})
) -> Bound:
  """The method of a `--system` value, with all its options.

  Args:
    text: NAME[:PRESET][:OPTION=VALUE]...
    given: options that have a flag of their own and were given there.
  """
  bound = specs.bind(text, METHODS, "system", given)
  bound.row.check(bound)
  return bound


def update_of(bound: Bound) -> str | None:
  """The gradient step of a method where none is given; None: it has none."""
  preset = bound.row.presets.get(bound.preset)
  if bound.row.update is None or bound.options.get("base") == "frozen":
    return None
  return preset.update if preset and preset.update else bound.row.update


def costs_of(bound: Bound) -> Costs:
  """The paper's prices of a method."""
  preset = bound.row.presets.get(bound.preset)
  return preset.costs if preset and preset.costs else bound.row.costs


def make(bound: Bound, student: Student, tx: Tx, **context: Any) -> System:
  """The system of a bound method.

  Args:
    bound: of `bind`.
    **context: facts about the stream and the student (`fps`,
      `num_frames`, `trained`); a factory gets those that it takes.
  """
  taken = inspect.signature(bound.row.factory).parameters
  context = {name: x for name, x in context.items() if name in taken}
  return bound.make(student, tx, **context)


def create(text: str, student: Student, tx: Tx, **context: Any) -> System:
  """The system of a text around any student; arguments are those of `make`."""
  return make(bind(text), student, tx, **context)

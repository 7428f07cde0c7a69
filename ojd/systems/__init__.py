"""One file a method; the table of their names.

`--system=NAME` or `--system=NAME:WORD`: a word is one of the method's presets.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ojd.costs import Costs
from ojd.distill import System
from ojd.errors import UserError
from ojd.models import optical_flow
from ojd.models.student import Student
from ojd.systems import factories, jit_plus, offline_oracle, osvos
from ojd.systems.factories import Settings
from ojd.updates.step import Tx

__all__ = ["SYSTEMS", "Method", "Settings", "find", "make", "parse"]

# (student, gradient step, settings, ...) -> System; the options of a preset
# are keywords.
Factory = Callable[..., System]


class Remote(NamedTuple):
  """How a method works whose student is apart from its teacher."""

  codec: str = "raw"  # of key frames, of edge.messages
  dtype: str = "float32"  # of what is learnt
  # Frames travel when there is a lesson, together; else at once.
  is_batched: bool = False
  waits: bool = True  # for an update, once delta_min frames have gone by


class Preset(NamedTuple):
  """What a word after the method's name stands for."""

  settings: Mapping[str, Any] = {}  # in the place of those given
  options: Mapping[str, Any] = {}  # for the factory
  costs: Costs | None = None  # None: those of the method
  # Where none is asked for; empty: as of the method.
  update: str = ""
  learning_rate: float | None = None  # of that update; None: its own


class Method(NamedTuple):
  """A row of the table."""

  factory: Factory
  about: str  # in a few words, for --help
  # Flags that make a difference to it, beside those of every run.
  uses: frozenset[str] = frozenset()
  words: Mapping[str, Preset] = {}
  default: str = ""  # the word where none is given
  costs: Costs = Costs()
  update: str = "sgd"  # the gradient step where none is asked for
  learning_rate: float | None = None  # of that one; None: its own
  remote: Remote | None = None  # None: device and server are one
  # What is done with the whole stream before the run, if anything is: it leaves
  # a student for the system to begin with, and says whether it could end.
  prepare: Callable[[offline_oracle.Preparation], bool] | None = None


_STEPS = frozenset({"update", "learning_rate", "seed", "init"})
# Who learns while the student of `delta` and `skip` answers.
_BASES = {
  "jit": Preset(options={"base": factories.jit}),
  "plus": Preset(options={"base": factories.jit_plus}, update="fast_head"),
  "frozen": Preset(options={"base": factories.frozen}),
}
# What stands in for the student between key frames has norms of its own.
_BETWEEN = factories.LEARNS - {"norm"} | _STEPS
_BETWEEN |= {"delta_min", "delta_max"}
_BETWEEN |= {"refresh_every", "refresh_change", "follow", "quirks"}


# Of its flow the paper tells speed-ups alone, 2.2 with the teacher on every 8th
# frame and 3.2 on every 16th: 300 x 8 / (300 + 7 x 113) and
# 300 x 16 / (300 + 15 x 80).
_SLOW_FLOW, _FAST_FLOW = Costs(predict=113.0), Costs(predict=80.0)
# Half a minute of training an interval; the paper's hour for two minutes of
# video is all of that.
_STUDENT_AND_FLOW = Costs(predict=_SLOW_FLOW.predict + Costs().predict)
# An update looks at eight frames.
_AMS = Costs(update=8 * Costs().update)
_OSVOS = Costs(predict=0.0, update=0.0, lesson=30_000.0)

SYSTEMS: dict[str, Method] = {
  "jit": Method(
    factories.jit,
    "Algorithm 1: the teacher by exponential back-off",
    factories.LEARNS | _STEPS | {"delta_min", "delta_max"},
    remote=Remote(),
  ),
  "jit_plus": Method(
    factories.jit_plus,
    "the same, judged by the accuracy before the updates",
    factories.LEARNS | _STEPS | {"delta_min", "delta_max"},
    words={
      f"no_{name}": Preset(options={field: getattr(jit_plus.NOTHING, field)})
      for name, field in (
        *(("honesty", "is_honest"), ("stretch", "stretch")),
        *(("zeal", "zeal"), ("boost", "boost")),
      )
    },
    update="fast_head",
    remote=Remote(),
  ),
  "jit_flow": Method(
    factories.jit_flow,
    "jit, and where its student is unsure the last labels, carried by the flow",
    factories.LEARNS | _STEPS | {"delta_min", "delta_max", "flow"},
    words={
      "jit": Preset(options={"base": factories.jit}),
      "plus": Preset(options={"base": factories.jit_plus}, update="fast_head"),
    },
    default="jit",
    costs=_STUDENT_AND_FLOW,
  ),
  "shadowtutor": Method(
    factories.shadowtutor,
    "the decoder alone learns, and the stride follows the accuracy",
    factories.LEARNS | _STEPS | {"delta_min", "delta_max"},
    words={"full": Preset(update="adam", learning_rate=0.01)},
    update="partial_adam",
    remote=Remote(),
  ),
  "ams": Method(
    factories.ams,
    "lessons every train_period seconds on the samples of horizon seconds",
    _STEPS
    | {"sampling_rate", "train_period", "horizon", "iterations", "batch_size"},
    words={
      "steady": Preset(options={"is_sampling_adaptive": False}),
      "slow": Preset(options={"is_training_adaptive": True}),
      "one_time": Preset(
        options={"is_sampling_adaptive": False, "is_one_time": True},
        update="adam",
      ),
    },
    costs=_AMS,
    update="top_k",
    remote=Remote("h264", "float16", is_batched=True, waits=False),
  ),
  "fixed": Method(
    factories.fixed,
    "the same on every delta_min-th frame",
    factories.LEARNS | _STEPS | {"delta_min"},
    remote=Remote(),
  ),
  "frozen": Method(
    factories.frozen,
    "the student as it came",
    frozenset({"init"}),
    remote=Remote(),
  ),
  "teacher": Method(factories.teacher, "the teacher on every frame"),
  "copy_last": Method(
    factories.copy_last,
    "the teacher on every delta_min-th frame, and its answer until the next",
    frozenset({"delta_min"}),
    costs=Costs(predict=0.0),
  ),
  "flow": Method(
    factories.flow,
    "the same, its answer carried along by optical flow",
    frozenset({"delta_min", "flow"}),
    words={
      "slow": Preset({"delta_min": 8}),
      "fast": Preset(
        {"delta_min": 16, "flow": optical_flow.dis("ultrafast")},
        costs=_FAST_FLOW,
      ),
    },
    costs=_SLOW_FLOW,
  ),
  "osvos": Method(
    factories.osvos,
    f"trained on every {osvos.INTERVAL}th frame alone",
    _STEPS | {"u_max"},
    words={
      "A": Preset(options={"mode": "A"}),
      "B": Preset(options={"mode": "B"}),
    },
    default="B",
    costs=_OSVOS,
  ),
  "offline_oracle": Method(
    factories.frozen,
    "trained on the stream beforehand, then frozen",
    frozenset({"init"}),
    prepare=offline_oracle.prepare,
  ),
  "delta": Method(
    factories.delta,
    "jit, and between frames that its network sees whole a cheaper one, of what"
    " changed",
    _BETWEEN | {"gamma", "policy"},
    words=_BASES | {"same": Preset(options={"is_exact": True})},
    default="jit",
  ),
  "skip": Method(
    factories.skip,
    "the same, its own convolutions where something changed",
    _BETWEEN | {"skip_eps", "skip_gate", "skip_memory", "skip_block"},
    words=_BASES,
    default="jit",
  ),
}


def parse(text: str) -> tuple[str, str]:
  """Takes `flow:slow` apart: ("flow", "slow"); a UserError if unknown."""
  name, colon, word = text.partition(":")
  method = SYSTEMS.get(name)
  if method is None:
    raise UserError(f"--system={text}: unknown; known are {', '.join(SYSTEMS)}")
  if not colon:
    return name, method.default
  if word not in method.words:
    known = ", ".join((name, *(f"{name}:{x}" for x in method.words)))
    raise UserError(f"--system={text}: unknown; known of it are {known}")
  return name, word


def find(text: str) -> Method:
  """The method of a `--system` value: with a word, that preset's own."""
  name, word = parse(text)
  method = SYSTEMS[name]
  if not word:
    return method
  preset = method.words[word]
  return method._replace(
    # What the word settles no flag does.
    uses=method.uses - preset.settings.keys(),
    costs=preset.costs or method.costs,
    update=preset.update or method.update,
    learning_rate=preset.learning_rate,
  )


def make(
  text: str,
  student: Student,
  tx: Tx,
  settings: Settings,
) -> System:
  """The system of a `--system` value around any student."""
  name, word = parse(text)
  method = SYSTEMS[name]
  preset = method.words[word] if word else Preset()
  settings = settings._replace(**preset.settings)
  return method.factory(student, tx, settings, **preset.options)

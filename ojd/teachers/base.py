"""The teacher protocol and the table of names.

`--teacher=NAME[:PRESET][:OPTION=VALUE]...` names a row of TEACHERS; the options
are the keywords of its factory. A new teacher is a module with
`make_teacher(context, *, options)` and a row. The module is imported when the
teacher is made, so that the others do not import torch.

`--teacher=package.module:factory[:OPTION=VALUE]...` is a custom teacher: the
factory is called with the options as keywords. It returns a callable with
`class_names`, "background" first. Called with a frame [H, W, 3] uint8, that
returns `Instances` or a class map [H, W] of integers, 255 where it does not
know.
"""

import importlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ojd import labels as labels_lib
from ojd import specs
from ojd.errors import UserError
from ojd.labels import BACKGROUND_NAME
from ojd.types import (
  MAX_CLASSES,
  Instances,
  Labels,
  Sample,
  check_class_map,
)


class Teacher(Protocol):
  """Finds the objects of a frame, in classes of its own.

  A call that raises a UserError ends the run. After any other exception the
  call is retried; then the stream goes on without an answer.

  A teacher whose answer is on a device may also have
  `label(sample, groups) -> Labels`, the labels of the answer that a call would
  give. It is used instead, and the labels may be JAX arrays. A teacher that is
  faster with several frames at once may have `label_many(samples, groups)`.
  """

  class_names: tuple[str, ...]  # "background" first
  is_free: bool  # its answers cost nothing: there is no speed-up to measure

  def __call__(self, sample: Sample) -> Instances | np.ndarray:
    """Instances, or a class map [H, W] uint8, of the sample's frame."""
    ...


class Context(NamedTuple):
  """The stream that a teacher will see."""

  truth_names: tuple[str, ...]  # of the stream's own labels; empty without
  height: int  # of its frames
  width: int
  stream_identity: dict[str, Any]  # JSON; equal for equal frames


class Row(NamedTuple):
  """A teacher of the table; its module is imported for its factory only."""

  module: str  # with make_teacher(context, *, options) -> Teacher
  presets: Mapping[str, specs.Preset] = types.MappingProxyType({})
  is_of_one_stream: bool = (
    False  # its answers are those of the context's stream
  )

  @property
  def factory(self) -> Callable[..., Teacher]:
    return importlib.import_module(self.module).make_teacher


TEACHERS = {
  "ground_truth": Row("ojd.teachers.ground_truth", is_of_one_stream=True),
  "recorded": Row("ojd.teachers.recorded", is_of_one_stream=True),
  "mask_rcnn": Row(
    "ojd.teachers.mask_rcnn",
    presets={v: specs.Preset({"version": v}) for v in ("v1", "v2")},
  ),
  "mask_rcnn_tiny": Row("ojd.teachers.tiny"),
}


def is_of_one_stream(text: str) -> bool:
  """Whether a `--teacher` answers for one stream only, that of its context.

  Any other can label the frames of several streams.
  """
  row = TEACHERS.get(_name(text))
  return row is not None and row.is_of_one_stream


def sharing_key(text: str, context: Context) -> tuple[Any, ...]:
  """A key that is equal for contexts that the same teacher can serve."""
  if _name(text) in TEACHERS:
    return ()
  # A custom teacher may depend on anything.
  return context.truth_names, context.height, context.width


def without_device(text: str) -> str:
  """A `--teacher` without `device`, which does not change its answers."""
  if _name(text) not in TEACHERS:
    return text
  spec = specs.parse(text, "teacher")
  options = [f"{k}={v}" for k, v in spec.options if k != "device"]
  return ":".join([spec.name, *filter(None, [spec.preset]), *options])


def make_teacher(text: str, context: Context) -> Teacher:
  """The teacher of a `--teacher` value, which is refused in one line."""
  name, _, rest = text.partition(":")
  if name in TEACHERS:
    return specs.bind(text, TEACHERS, "teacher").make(context)
  if not rest or "=" in rest.partition(":")[0]:
    raise UserError(
      f"--teacher={text}: unknown; known are {', '.join(TEACHERS)} and "
      "package.module:factory"
    )
  return make_custom(name, rest)


def create(text: str, *, height: int, width: int) -> Teacher:
  """The teacher of a text, for frames of a size and no stream in particular.

  Args:
    text: NAME[:PRESET][:OPTION=VALUE]..., as `--teacher` takes it.
    height: of the frames; so is width.
  """
  return make_teacher(text, Context((), height, width, {}))


def _name(text):
  return text.partition(":")[0]


def label(
  teacher: Teacher, sample: Sample, groups: labels_lib.ClassGroups
) -> Labels:
  """Calls the teacher, and turns its answer into labels for the student."""
  own_label = getattr(teacher, "label", None)
  if own_label is not None:
    return own_label(sample, groups)
  answer = teacher(sample)
  check_answer(teacher, answer, sample.frame)
  if isinstance(answer, Instances):
    return labels_lib.from_instances(answer, groups, *sample.frame.shape[:2])
  return labels_lib.from_class_map(answer, groups)


def label_many(
  teacher: Teacher,
  samples: Sequence[Sample],
  groups: Sequence[labels_lib.ClassGroups],
) -> list[Labels]:
  """`label` of several frames, at once where the teacher can do that."""
  own = getattr(teacher, "label_many", None)
  if own is not None:
    return own(samples, groups)
  return [label(teacher, *each) for each in zip(samples, groups, strict=True)]


def check_answer(
  teacher: Teacher, answer: Instances | np.ndarray, frame: np.ndarray
) -> None:
  """Raises a UserError where an answer does not fit the frame."""
  if isinstance(answer, Instances):
    _check_instances(answer, *frame.shape[:2], len(teacher.class_names))
    return
  if len(teacher.class_names) > MAX_CLASSES:
    raise UserError(
      f"--teacher: a class map cannot hold {len(teacher.class_names)} classes, "
      f"at most {MAX_CLASSES}"
    )
  try:
    check_class_map("its answer", answer, frame)
  except ValueError as error:
    raise UserError(f"--teacher: {error}") from None


def _check_instances(instances, height, width, num_classes):
  """Raises unless the parts of the answer fit each other and the frame."""
  count = len(instances.scores)
  masks = np.shape(instances.masks)
  fits = len(masks) == 3 and masks[0] == count or count == 0
  # Full size, or a soft square inside the box.
  fits &= masks[1:] == (height, width) or len(set(masks[1:])) <= 1
  fits &= np.shape(instances.boxes) == (count, 4)
  fits &= np.shape(instances.class_ids) == (count,)
  if not fits:
    raise UserError(
      f"--teacher: {count} scores with boxes {np.shape(instances.boxes)}, "
      f"classes {np.shape(instances.class_ids)} and masks {masks} do not fit "
      f"a frame of {height}x{width}"
    )
  ids = np.asarray(instances.class_ids)
  if count and (ids.min() < 0 or ids.max() >= num_classes):
    raise UserError(f"--teacher: a class id is not from 0 to {num_classes - 1}")


class Custom:
  """A callable of the user's as a Teacher."""

  is_free = False

  def __init__(self, label_fn, class_names: tuple[str, ...]):
    self.class_names = class_names
    self._label_fn = label_fn

  def __call__(self, sample: Sample) -> Instances | np.ndarray:
    answer = self._label_fn(sample.frame)
    if isinstance(answer, Instances):
      return Instances(*(np.asarray(part) for part in answer))
    return _as_class_map(answer)


def _as_class_map(answer: Any) -> np.ndarray:
  """The class map as uint8, if it holds whole numbers that fit."""
  classes = np.asarray(answer)
  if classes.dtype == np.uint8:
    return classes
  is_whole = np.issubdtype(classes.dtype, np.integer) or classes.dtype == bool
  if not is_whole or classes.size == 0 or classes.min() < 0:
    raise UserError(
      f"--teacher: the answer is {classes.shape} {classes.dtype}, neither "
      "Instances nor a class map [H, W] of whole numbers"
    )
  if classes.max() > 255:
    raise UserError(f"--teacher: a class map holds {classes.max()}")
  return classes.astype(np.uint8)


def make_custom(module_name: str, text: str) -> Custom:
  """Imports a module and calls its factory.

  Args:
    module_name: package.module.
    text: factory[:OPTION=VALUE]...
  """
  where = f"--teacher={module_name}:{text}"
  name = text.partition(":")[0]
  try:
    module = importlib.import_module(module_name)
  except ImportError as error:
    raise UserError(f"{where} cannot be imported: {error}") from None
  factory = getattr(module, name, None)
  if not callable(factory):
    raise UserError(f"{where}: {module_name} has no such function")
  if name == text:
    made = factory()
  else:
    made = specs.bind(text, {name: specs.Entry(factory)}, "teacher").make()
  names = getattr(made, "class_names", None)
  is_named = isinstance(names, tuple | list) and len(names) > 1
  if not (is_named and all(isinstance(name, str) for name in names)):
    raise UserError(f"{where} returns nothing with a list of class_names")
  if names[0] != BACKGROUND_NAME or not callable(made):
    raise UserError(
      f'{where}: class_names begins with "background", and it is called with '
      "a frame"
    )
  return Custom(made, tuple(names))

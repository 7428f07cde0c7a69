"""The teacher protocol and the table of names.

A teacher more is a module with `make_teacher(request: TeacherRequest)` and a
row in TEACHERS; it is imported when it is asked for, so what it needs (torch)
costs the others nothing. `--teacher=name:argument` gives it `request.argument`;
one that takes none calls `refuse_argument`. Other options of a teacher become
fields of TeacherRequest with a default, filled where `ojd/run/job.py` makes it.
"""

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.types import (
  MAX_CLASSES,
  Instances,
  Labels,
  Sample,
  check_class_map,
)


class Teacher(Protocol):
  """Looks at a frame and says what is where, in classes of its own.

  A call that raises a UserError ends the run; after any other exception the
  teacher is asked again, and then the stream goes on without its answer.

  One that has its answer on a device may also offer
  `label(sample, groups) -> Labels`, the labels of the answer that a call would
  have given: it is asked instead, and the labels may be JAX arrays. One
  that is faster with several frames at once may offer
  `label_many(samples, groups)`.
  """

  class_names: tuple[str, ...]  # "background" first
  is_free: bool  # its answers cost nothing: no speed-up to be measured

  def __call__(self, sample: Sample) -> Instances | np.ndarray:
    """Instances, or a class map [H, W] uint8, of the sample's frame."""
    ...


class TeacherRequest(NamedTuple):
  """What a teacher may need to know before its first frame."""

  truth_names: tuple[str, ...]  # of the stream's own labels; empty without
  height: int  # of the frames it will see
  width: int
  stream_identity: dict[str, Any]  # JSON; equal for equal frames
  weights: str = ""  # a file; empty: the teacher's own
  device: str = ""  # of a torch teacher; empty: a GPU where there is one
  half: bool = False  # its networks in half precision; a GPU's alone
  name: str = ""  # of the teacher, filled by `make_teacher`
  argument: str = ""  # what follows `name:`, likewise


# name -> module with make_teacher(request) -> Teacher
TEACHERS = {
  "ground_truth": "ojd.teachers.ground_truth",
  "recorded": "ojd.teachers.recorded",
  "mask_rcnn": "ojd.teachers.mask_rcnn",
  "mask_rcnn_tiny": "ojd.teachers.mask_rcnn_tiny",
}
_CUSTOM = "ojd.teachers.custom"  # package.module:factory
_OF_ONE_STREAM = {"ground_truth", "recorded"}


def is_of_one_stream(text: str) -> bool:
  """Whether a `--teacher` knows the answers of the stream that it is told of.

  Any other can be asked about the frames of several streams.
  """
  return text.partition(":")[0] in _OF_ONE_STREAM


def sharing_key(text: str, request: TeacherRequest) -> tuple[Any, ...]:
  """Equal for requests that the same teacher can serve."""
  if text.partition(":")[0] in TEACHERS:
    return ()
  # What somebody else's looks at is not known.
  return request.truth_names, request.height, request.width


def make_teacher(text: str, request: TeacherRequest) -> Teacher:
  """The teacher of a `--teacher` value.

  Args:
    text: `name` or `name:argument`, the name a row of the table.
    request: what the teacher may need; its name and argument are filled here.
  """
  name, _, argument = text.partition(":")
  if name not in TEACHERS and not argument:
    raise UserError(
      f"--teacher={text}: unknown; known are {', '.join(TEACHERS)} and "
      "package.module:factory"
    )
  module = importlib.import_module(TEACHERS.get(name, _CUSTOM))
  return module.make_teacher(request._replace(name=name, argument=argument))


def refuse_argument(request: TeacherRequest) -> None:
  """Raises where a teacher that takes no argument was given one."""
  if request.argument:
    raise UserError(
      f"--teacher={request.name}:{request.argument}: {request.name} takes "
      "nothing after its name"
    )


def label(
  teacher: Teacher, sample: Sample, groups: labels_lib.ClassGroups
) -> Labels:
  """Asks the teacher, and turns its answer into labels for the student."""
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
      f"--teacher: a class map cannot tell {len(teacher.class_names)} classes "
      f"apart, at most {MAX_CLASSES}"
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

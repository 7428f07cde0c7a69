"""`--teacher=package.module:factory[:OPTION=VALUE]...`: a custom teacher.

The factory is called with the options as keywords. It returns a callable with
`class_names`, "background" first. Called with a frame [H, W, 3] uint8, that
returns `Instances` or a class map [H, W] of integers, 255 where it does not
know.
"""

import importlib
from typing import Any

import numpy as np

from ojd import specs
from ojd.errors import UserError
from ojd.labels import BACKGROUND_NAME
from ojd.types import Instances, Sample


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


def make_teacher(module_name: str, text: str) -> Custom:
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

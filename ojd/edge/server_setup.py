"""From a run's flags to what a server needs: teacher, student, system."""

import collections
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ojd import labels
from ojd.edge import student as student_lib
from ojd.edge import training
from ojd.edge.registry import Offer
from ojd.edge.training import RemoteSystem
from ojd.errors import UserError
from ojd.network.messages import H264, Schedule, Terms
from ojd.network.weights import Weights, layout_of
from ojd.run import build, compilation
from ojd.run import config as config_lib
from ojd.run.config import RunConfig, settled
from ojd.streams.base import MAX_SIDE, MIN_SIDE, StreamSpec
from ojd.teachers import labelers, process
from ojd.types import Labels

# They answer about frames of a stream that the server does not have.
_TIED_TEACHERS = ("ground_truth", "recorded")
# Programs of so many sizes of frames are kept.
_MAX_SYSTEMS = 8


class ServerParts(NamedTuple):
  """What a server needs beside its network."""

  offer: Offer
  systems: Callable[[Terms], RemoteSystem]
  labeler: labelers.Labeler
  dtype: str  # in which values travel


def make_parts(config: RunConfig) -> ServerParts:
  """Opens the teacher and makes the system of a checked config.

  Raises:
    UserError: its system or its teacher cannot serve devices.
  """
  _check(config)
  config = settled(config)
  teacher = build.open_teacher(config, _spec(config))
  try:
    return _make_parts(config, teacher)
  except BaseException:
    if isinstance(teacher, process.InProcess):
      teacher.close()
    raise


def _check(config):
  name = config.teacher.partition(":")[0]
  if name in _TIED_TEACHERS:
    raise UserError(
      f"--teacher={config.teacher} answers about a stream of its own, and a "
      "device's is another; name a teacher that looks at frames"
    )
  if build.method_of(config).prepare is not None:
    raise UserError(
      f"--system={config.system} learns from the whole stream beforehand, and "
      "a device's is not known"
    )


def _spec(config):
  """What is known of the streams of devices that are not there yet."""
  size = config.height or MIN_SIDE, config.width or MIN_SIDE
  return _spec_of(Terms(*size, 25.0, "", ""))


def _spec_of(terms):
  """What is known of a device's stream."""
  size, kind = (terms.height, terms.width), {"kind": "edge"}
  return StreamSpec(*size, terms.fps, None, (), kind, is_live=True)


def _make_parts(config, teacher):
  groups = labels.parse_groups(config.classes, teacher.class_names)
  student = build.make_student(config, groups)
  method = config_lib.bound_system(config)
  remote = method.row.remote
  if remote is None or method.options.get("norm") == "key_frame":
    raise UserError(
      f"--system={config.system}: a device that holds the "
      "student alone would answer otherwise; take shadowtutor, ams or jit"
    )
  params = student_lib.first_weights(student, config.seed)
  layout = layout_of(params, _trainable(config, params))
  # Until devices are told more.
  if remote.is_batched:
    options = method.options
    first = Schedule(0, options["sampling_rate"], options["train_period"])
  else:
    first = Schedule(stride=remote.first_interval(method.options, 25.0))
  offer = Offer(
    Weights(params, layout),
    first,
    student_lib.classes_text(groups),
    lambda terms: _problem(config, student, terms, remote.is_batched),
  )
  make = lambda terms: training.make_system(
    student,
    lambda student: build.make_system(config, student, _spec_of(terms)),
    *(terms.height, terms.width, config.seed),
  )
  # Some systems count in seconds.
  systems = _Systems(make, lambda terms: terms[: 3 if remote.is_batched else 2])
  if config.height and config.width:
    _compile(systems, offer, config)
  return ServerParts(
    offer,
    systems,
    _labeler(teacher, groups),
    remote.dtype,
  )


def _trainable(config, params):
  trains = build.trains_of(config)
  return None if trains is None else trains(list(params))


def _compile(systems, offer, config):
  """Compiles what training waits for first, where the size is known."""
  size = config.height, config.width
  system = systems(Terms(*size, 25.0, "", offer.classes))
  frame = np.zeros((*size, 3), np.uint8)
  blank = Labels(np.zeros(size, np.uint8), np.zeros(size, np.float32))
  state = system.begin(offer.first.params)
  state, _ = system.learn(system.skip(state, 1), frame, blank)
  system.serving_params(state), system.schedule(state)
  compilation.return_memory()


def _labeler(teacher, groups):
  if isinstance(teacher, process.InProcess):
    teacher.set_groups(groups)
    return teacher
  return labelers.InStep(teacher, groups)


def _problem(config, student, terms, is_batched):
  """Why frames of a device cannot be learned from; empty: they can."""
  size = terms.height, terms.width
  if not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
    return f"frames of {size[0]}x{size[1]}: {MIN_SIDE} to {MAX_SIDE} a side"
  wanted = config.height or size[0], config.width or size[1]
  if size != wanted:
    return (
      f"frames of {size[0]}x{size[1]}, and the server takes "
      f"{wanted[0]}x{wanted[1]} alone"
    )
  if terms.codec == H264 and not is_batched:
    return (
      f"--codec=h264 sends clips, and --system={config.system} takes frames "
      "one by one"
    )
  try:
    build.make_system(config, student, _spec_of(terms))
  except UserError as error:
    return str(error)
  return ""


class _Systems:
  """Systems by what devices send; the last few are kept."""

  def __init__(
    self, make: Callable[[Terms], RemoteSystem], key: Callable[[Terms], tuple]
  ):
    """What has the same key is taught by the same system."""
    self._make, self._key = make, key
    self._kept: collections.OrderedDict[tuple, RemoteSystem] = (
      collections.OrderedDict()
    )
    self._lock = threading.Lock()

  def __call__(self, terms: Terms) -> RemoteSystem:
    key = self._key(terms)
    with self._lock:
      if key not in self._kept:
        self._kept[key] = self._make(terms)
      self._kept.move_to_end(key)
      while len(self._kept) > _MAX_SYSTEMS:
        self._kept.popitem(last=False)
      return self._kept[key]

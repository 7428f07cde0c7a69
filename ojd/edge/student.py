"""The student at both ends: its first weights, and where a device runs it.

Both ends make the same student from the same flags; then no weights travel at
first.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from ojd import labels
from ojd.edge.device import ServedWeights
from ojd.labels import BACKGROUND_NAME, ClassGroups
from ojd.models import pretrained
from ojd.models.student import Params, Student
from ojd.network.weights import Params as NamedParams
from ojd.types import Frame

# A network's parameters do not depend on what its first frame shows, nor on
# its size.
_EXAMPLE = (64, 64, 3)


def first_weights(student: Student, seed: int) -> dict[str, np.ndarray]:
  """The student's first parameters, by "layer/.../leaf"."""
  frame = np.zeros(_EXAMPLE, np.uint8)
  init = jax.jit(lambda key: student.init(key, frame))
  return flatten(init(jax.random.key(seed)))


def flatten(params: Params) -> dict[str, np.ndarray]:
  """Parameters as arrays on the host, by name."""
  flat = pretrained.flatten(jax.device_get(params))
  return {k: np.asarray(v, np.float32) for k, v in flat.items()}


def unflatten(named: NamedParams) -> Params:
  """The parameters again."""
  return traverse_util.unflatten_dict(dict(named), sep="/")


def classes_text(groups: ClassGroups) -> str:
  """Groups as `--classes` takes them; equal groups give equal texts."""
  parts = []
  for name, members in list(zip(groups.names, groups.members, strict=True))[1:]:
    alone = members == (name,)
    parts.append(name if alone else f"{name}={','.join(members)}")
  return ";".join(parts)


def groups_of(text: str) -> ClassGroups:
  """The groups of a text for any teacher; a UserError if there are none."""
  names = dict.fromkeys(part.strip() for part in re.split("[;=,]", text))
  return labels.parse_groups(text, (BACKGROUND_NAME, *names))


# (parameters on the device, frame) -> classes [H, W] uint8
Answer = Callable[[Any, Frame], jax.Array]


class Staged(NamedTuple):
  """Weights on the student's device, ready between two frames."""

  params: Any
  version: int
  key_t: int | None


class Stage:
  """Holds received weights until the player takes them."""

  def __init__(self, put: Callable[[NamedParams], Any], first: NamedParams):
    """`put` brings arrays by name to the device, in the thread that receives.

    The latest is one reference: it is exchanged in one step.
    """
    self._put = put
    self.latest = Staged(put(first), 0, None)

  def __call__(self, served: ServedWeights) -> None:
    params = jax.block_until_ready(self._put(served.held.params))
    self.latest = Staged(params, served.held.version, served.key_t)


def student_stage(answer: Answer, first: NamedParams) -> tuple[Answer, Stage]:
  """A stage for a student of this package, with its first weights."""
  stage = Stage(lambda named: jax.device_put(unflatten(named)), first)
  return jax.jit(answer), stage


def program_stage(
  program: Callable[..., jax.Array], first: NamedParams
) -> tuple[Answer, Stage]:
  """The same for an exported program (`ojd.models.export`)."""
  stage = Stage(lambda named: jax.device_put(dict(named)), first)
  return lambda params, frame: program(params, frame[None])[0], stage

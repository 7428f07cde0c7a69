"""The student that a server and a device have in common before they connect.

Both make the same one of the same flags: then no weights travel at first.
"""

import re
from collections.abc import Mapping

import jax
import numpy as np
from flax import traverse_util

from ojd import labels
from ojd.labels import BACKGROUND_NAME, ClassGroups
from ojd.models import pretrained
from ojd.models.student import Params, Student

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


def unflatten(named: Mapping[str, np.ndarray]) -> Params:
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
  """The groups of a text, whoever the teacher is; a UserError if none."""
  names = dict.fromkeys(part.strip() for part in re.split("[;=,]", text))
  return labels.parse_groups(text, (BACKGROUND_NAME, *names))

"""The flags that a server of devices and a device have in common."""

import math
from collections.abc import Collection

from absl import flags

from experiments import run_flags
from ojd.edge import access
from ojd.edge.access import Timing
from ojd.errors import UserError

_TOKEN_FILE = flags.DEFINE_string(
  "token_file",
  "",
  "a file with the secret of the devices; empty: the variable OJD_TOKEN, if "
  "it is set",
)
_HEARTBEAT = flags.DEFINE_float(
  "heartbeat", 10.0, "seconds between signs of life"
)
_TIMEOUT = flags.DEFINE_float(
  "timeout",
  60.0,
  "seconds without a sign of life after which the other end counts as gone",
)


def token() -> str:
  """The secret; empty without one."""
  return access.read_token(_TOKEN_FILE.value)


def timing() -> Timing:
  """Of a connection."""
  check_positive(heartbeat=_HEARTBEAT.value, timeout=_TIMEOUT.value)
  return Timing(_HEARTBEAT.value, _TIMEOUT.value)


def check_positive(**values: float) -> None:
  """Raises a UserError for a flag that is not above 0 and finite."""
  for name, value in values.items():
    if not 0 < value < math.inf:
      raise UserError(f"--{name}={value}: above 0 and finite")


def refuse_others(used: Collection[str], whose: str) -> None:
  """Raises a UserError for a flag of a run that would be ignored."""
  for name in run_flags.given():
    if name not in used:
      raise UserError(f"--{name} is not used here: {whose}")

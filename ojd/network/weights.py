"""Weights that both ends hold alike, a version after the other."""

from typing import NamedTuple

import numpy as np

from ojd.network import payload as payload_lib
from ojd.network.layout import Layout
from ojd.network.limits import WireError
from ojd.network.messages import NO_SESSION, Update


class Weights(NamedTuple):
  """What a device predicts with, and the server's copy of it."""

  params: payload_lib.Params
  layout: Layout
  version: int = 0


class Schedule(NamedTuple):
  """What goes along with an update (`messages.Update`)."""

  stride: int = 0
  sampling_rate: float = 0.0
  training_period: float = 0.0


UNSCHEDULED = Schedule()


def advance(
  held: Weights,
  params: payload_lib.Params,
  chosen: payload_lib.Chosen,
  *,
  dtype: str = "float32",
  code: str | None = None,
  session: bytes = NO_SESSION,
  schedule: Schedule = UNSCHEDULED,
) -> tuple[Update, Weights]:
  """The update for a device, and what it and the server then hold.

  Args:
    held: what the device holds now.
    params: what the server has trained from there; float32, by name.
    chosen: what was moved (`payload.Chosen`).
    dtype: of the values, as for `payload.pack`.
    code: of the mask, likewise.
    session: of the device.
    schedule: from here on.

  Raises:
    WireError: a chosen value is not finite.
    ValueError: other weights, or some moved that were not chosen.
  """
  layout = held.layout
  payload = payload_lib.pack(params, layout, chosen, dtype, code)
  copy = payload_lib.server_copy(params, layout, chosen, dtype)
  if not isinstance(chosen, str) or chosen != payload_lib.FULL:
    _check_others(held, copy, payload)
  update = Update(
    session, held.version, held.version + 1, layout.digest, *schedule, payload
  )
  return update, Weights(copy, layout, update.new_version)


def _check_others(held, copy, payload):
  applied = payload_lib.apply(held.params, held.layout, payload)
  for name, array in copy.items():
    if not np.array_equal(applied[name].view("u4"), array.view("u4")):
      raise ValueError(f"{name} has moved where it was not chosen")


def whole(held: Weights, session: bytes = NO_SESSION) -> Update:
  """The update that gives a device all weights, whatever it holds."""
  payload = payload_lib.pack(held.params, held.layout, payload_lib.FULL)
  return Update(
    *(session, held.version, held.version, held.layout.digest),
    *UNSCHEDULED,
    payload,
  )


def apply(held: Weights, update: Update) -> Weights:
  """What a device holds after an update, in arrays of its own.

  Raises:
    WireError: it is for other weights; those held are still whole.
  """
  if update.layout != held.layout.digest:
    raise WireError("the update is for weights of another layout")
  is_whole = update.payload.encoding == payload_lib.FULL
  if not is_whole and update.base_version != held.version:
    raise WireError(
      f"the update fits version {update.base_version} of the weights, and "
      f"version {held.version} is held"
    )
  params = payload_lib.apply(held.params, held.layout, update.payload)
  return Weights(params, held.layout, update.new_version)

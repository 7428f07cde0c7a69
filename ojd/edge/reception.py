"""What a server says to a device that is new: who is let in, and how."""

import secrets
from collections.abc import Callable
from typing import NamedTuple

from ojd.edge.session import Rules, Session
from ojd.network import layout as layout_lib
from ojd.network import wire
from ojd.network.limits import Limits
from ojd.network.messages import SESSION_BYTES, Hello, Terms
from ojd.network.weights import Schedule, Weights

_MAX_SHOWN = 200  # characters of a text that is not the server's


class Offer(NamedTuple):
  """What a server has for devices."""

  first: Weights  # what each of them begins with
  schedule: Schedule  # at first
  classes: str  # as in `messages.Terms`
  # What is wrong with a device's frames; empty: nothing.
  check_terms: Callable[[Terms], str] = lambda terms: ""


class Reception:
  """An offer, and whom it suits."""

  def __init__(self, offer: Offer, limits: Limits):
    self._offer, self._limits = offer, limits
    first = offer.first
    # As a device tells it, who does not know what trains.
    self._layout = layout_lib.layout_of(first.params).digest
    self._first_digest = layout_lib.digest_of(first.params, first.layout)

  def mismatch(self, hello: Hello) -> str:
    """Why a device cannot be served; empty: it can."""
    if wire.VERSION not in hello.protocols:
      known = ", ".join(map(str, hello.protocols))
      return f"the server speaks protocol {wire.VERSION}, the device {known}"
    there, here = hello.terms.classes, self._offer.classes
    if there != here:
      return (
        f"other classes: the device tells {_short(there)!r} apart, the server "
        f"{_short(here)!r}; give both the same --classes"
      )
    if hello.layout != self._layout:
      return "another network: give both the same --model"
    return self._offer.check_terms(hello.terms)

  def should_adopt(self, hello: Hello) -> bool:
    """Whether a device whose session nobody knows was taught before.

    What it has learnt is worth more than what devices begin with.
    """
    is_other = hello.weights != self._first_digest
    num_bytes = 4 * self._offer.first.layout.num_coords + 1000
    fits = num_bytes <= self._limits.max_bytes
    return hello.version > 0 and is_other and fits

  def begin(self, hello: Hello, rules: Rules) -> Session:
    """A session whose device begins anew, or goes on with what it holds."""
    number, first = secrets.token_bytes(SESSION_BYTES), self._offer.first
    if hello.weights == self._first_digest or self.should_adopt(hello):
      first = first._replace(version=hello.version)
    return Session(number, hello.terms, first, self._offer.schedule, rules)


def _short(text):
  return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."

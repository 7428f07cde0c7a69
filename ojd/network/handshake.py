"""The first word of a device and the answer to it: what both keep to.

A device says what its frames are like and what it tells apart in them, and
which weights it holds; where the server has the same in mind, no weights are
sent. What of them trains is the server's to say, and so is the schedule.
"""

import math
import struct
from typing import NamedTuple

from ojd.network.layout import DIGEST_BYTES
from ojd.network.limits import Limits, WireError
from ojd.network.reader import Reader, check_bytes, check_number, name_of

SESSION_BYTES = 16
NO_SESSION = bytes(SESSION_BYTES)
RAW, JPEG, H264 = "raw", "jpeg", "h264"
CODECS = (RAW, JPEG, H264)
MAX_CLASSES_TEXT = 1 << 14  # bytes
MAX_ARRAYS = 1 << 14
MAX_FPS = 1000.0
# The server counts on from a device's version.
MAX_VERSION = (1 << 63) - 1

_HELLO = struct.Struct("<16s16sQ16sHHdBHB")
_WELCOME = struct.Struct("<16sBQIddB")


class Terms(NamedTuple):
  """What a device's frames are, and what is told apart in them."""

  height: int
  width: int
  fps: float  # of the stream: frame t is seen at t / fps
  codec: str  # of CODECS; H264: all frames of a training period as one clip
  classes: str  # `person;auto=car,bus`, as `ojd.labels.parse_groups` reads it


class Hello(NamedTuple):
  """A client's first word."""

  protocols: tuple[int, ...]  # the versions that it knows
  layout: bytes  # digest of names and shapes, as if all of them trained
  terms: Terms
  weights: bytes = bytes(DIGEST_BYTES)  # digest of those that it holds
  session: bytes = NO_SESSION  # one to be taken up again
  version: int = 0  # of the weights that it holds


class Welcome(NamedTuple):
  """The server's answer to it."""

  session: bytes
  protocol: int  # the version that both keep to from here on
  version: int  # of the weights that the server has
  stride: int  # the schedule so far, as in an Update
  sampling_rate: float
  training_period: float
  wants_weights: bool  # whether the device is to send those that it holds
  trainable: bytes  # a bit for each array, by sorted name: is it trained?


def pack_hello(hello: Hello) -> bytes:
  known, classes = bytes(hello.protocols), hello.terms.classes.encode()
  height, width, fps, codec, _ = hello.terms
  head = _HELLO.pack(
    *(hello.session, hello.layout, hello.version, hello.weights),
    *(height, width, fps, CODECS.index(codec)),
    *(len(classes), len(known)),
  )
  return b"".join((head, classes, known))


def unpack_hello(reader: Reader) -> Hello:
  session, layout, version, weights, *numbers = reader.unpack(_HELLO)
  height, width, fps, codec, num_classes, num_known = numbers
  try:
    classes = reader.take(num_classes).decode()
  except UnicodeDecodeError:
    raise WireError("the classes are no text") from None
  terms = Terms(height, width, fps, name_of(CODECS, codec), classes)
  protocols = tuple(reader.take(num_known))
  return Hello(protocols, layout, terms, weights, session, version)


def check_hello(hello: Hello, limits: Limits) -> None:
  del limits
  check_bytes("session", hello.session, SESSION_BYTES)
  check_bytes("layout", hello.layout, DIGEST_BYTES)
  check_bytes("digest of weights", hello.weights, DIGEST_BYTES)
  if not hello.protocols:
    raise WireError("a client that knows no version of the protocol")
  if hello.version > MAX_VERSION:
    raise WireError(f"weights of version {hello.version}")
  height, width, fps, _, classes = hello.terms
  if not (height and width):
    raise WireError(f"frames of {height}x{width} pixels")
  if not (math.isfinite(fps) and 0 < fps <= MAX_FPS):
    raise WireError(f"{fps} frames a second")
  if len(classes.encode()) > MAX_CLASSES_TEXT or not classes.isprintable():
    raise WireError(f"the classes are a line of up to {MAX_CLASSES_TEXT} bytes")


def pack_welcome(welcome: Welcome) -> bytes:
  return _WELCOME.pack(*welcome[:-1]) + welcome.trainable


def unpack_welcome(reader: Reader) -> Welcome:
  *fields, wants = reader.unpack(_WELCOME)
  if wants > 1:
    raise WireError(f"a yes or no of {wants}")
  return Welcome(*fields, bool(wants), reader.rest())


def check_welcome(welcome: Welcome, limits: Limits) -> None:
  del limits
  check_bytes("session", welcome.session, SESSION_BYTES)
  check_number("sampling rate", welcome.sampling_rate)
  check_number("training period", welcome.training_period)
  if len(welcome.trainable) > MAX_ARRAYS // 8:
    raise WireError(f"{8 * len(welcome.trainable)} arrays")

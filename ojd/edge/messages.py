"""What a server and a device say to each other, and the bytes of each.

Every kind is a NamedTuple with a function that packs its body, and one that
unpacks and checks it; `KINDS` is the table of them.
"""

import math
import struct
from collections.abc import Callable
from typing import NamedTuple

from ojd.edge import payload as payload_lib
from ojd.edge.layout import DIGEST_BYTES
from ojd.edge.limits import Limits, WireError
from ojd.edge.payload import Payload

SESSION_BYTES = 16
NO_SESSION = bytes(SESSION_BYTES)
RAW, JPEG, H264 = "raw", "jpeg", "h264"
CODECS = (RAW, JPEG, H264)
MAX_TEXT = 1000  # bytes

_HELLO = struct.Struct("<16s16sQB")
_WELCOME = struct.Struct("<16sBQ")
_FRAMES = struct.Struct("<BHHHH")  # codec, height, width, times, chunks
_UPDATE = struct.Struct("<16sQQ16sIdd")
_PAYLOAD = struct.Struct("<BBIII")  # encoding, dtype, P, chosen, bytes of mask
_VERSION = struct.Struct("<Q")
_TIME = struct.Struct("<d")


class Hello(NamedTuple):
  """A client's first word."""

  protocols: tuple[int, ...]  # the versions that it knows
  layout: bytes  # digest
  session: bytes = NO_SESSION  # one to be taken up again
  version: int = 0  # of the weights that it holds


class Welcome(NamedTuple):
  """The server's answer to it."""

  session: bytes
  protocol: int  # the version that both keep to from here on
  version: int  # of the weights that the server has


class Frames(NamedTuple):
  """Key frames, upwards; what the bytes of an image say is not looked at."""

  codec: str  # of CODECS
  height: int
  width: int
  times: tuple[float, ...]  # of the frames, seconds of the stream, ascending
  chunks: tuple[bytes, ...]  # one a frame; of H264 one for all


class Update(NamedTuple):
  """New values of weights, and what the schedule is from here on."""

  session: bytes
  base_version: int  # of the weights that it fits; all values fit any
  new_version: int  # of what they become
  layout: bytes  # digest
  stride: int  # frames between key frames; 0 where that is not the schedule
  sampling_rate: float  # key frames a second; 0 likewise
  training_period: float  # seconds between updates; 0 likewise
  payload: Payload


class Ack(NamedTuple):
  """The device holds these weights, whole."""

  version: int


class Resync(NamedTuple):
  """The device asks for all weights: what came does not fit these."""

  version: int


class Heartbeat(NamedTuple):
  """Somebody is there; whoever gets one that is not its own sends it back."""

  time: float


class Error(NamedTuple):
  """Why the connection ends, in one line."""

  text: str


class Bye(NamedTuple):
  """It ends, and nothing is wrong."""


Message = (
  Hello | Welcome | Frames | Update | Ack | Resync | Heartbeat | Error | Bye
)


class Reader:
  """Takes a body apart from its beginning."""

  def __init__(self, data: bytes):
    self._data, self._position = data, 0

  def take(self, num: int) -> bytes:
    """The next bytes."""
    end = self._position + num
    if end > len(self._data):
      raise WireError("the message is cut off")
    part = self._data[self._position : end]
    self._position = end
    return part

  def unpack(self, numbers: struct.Struct) -> tuple:
    """The next numbers."""
    return numbers.unpack(self.take(numbers.size))

  def rest(self) -> bytes:
    """All that is left."""
    return self.take(len(self._data) - self._position)


def _pack_hello(hello):
  known = bytes(hello.protocols)
  head = _HELLO.pack(hello.session, hello.layout, hello.version, len(known))
  return head + known


def _unpack_hello(reader):
  session, layout, version, num = reader.unpack(_HELLO)
  return Hello(tuple(reader.take(num)), layout, session, version)


def _check_hello(hello, limits):
  del limits
  _check_bytes("session", hello.session, SESSION_BYTES)
  _check_bytes("layout", hello.layout, DIGEST_BYTES)
  if not hello.protocols:
    raise WireError("a client that knows no version of the protocol")


def _check_welcome(welcome, limits):
  del limits
  _check_bytes("session", welcome.session, SESSION_BYTES)


def _pack_frames(frames):
  sizes = [len(chunk) for chunk in frames.chunks]
  counts = len(frames.times), len(sizes)
  codec = CODECS.index(frames.codec)
  return b"".join(
    (
      _FRAMES.pack(codec, frames.height, frames.width, *counts),
      struct.pack(f"<{counts[0]}d", *frames.times),
      struct.pack(f"<{counts[1]}I", *sizes),
      *frames.chunks,
    )
  )


def _unpack_frames(reader):
  codec, height, width, num_times, num_chunks = reader.unpack(_FRAMES)
  times = reader.unpack(struct.Struct(f"<{num_times}d"))
  sizes = reader.unpack(struct.Struct(f"<{num_chunks}I"))
  chunks = tuple(reader.take(size) for size in sizes)
  return Frames(_name(CODECS, codec), height, width, times, chunks)


def _check_frames(frames, limits):
  num, height, width = len(frames.times), frames.height, frames.width
  if not 0 < num <= limits.max_frames:
    raise WireError(f"{num} frames, and {limits.max_frames} are the most")
  if not (height and width):
    raise WireError(f"frames of {height}x{width} pixels")
  for time in frames.times:
    _check_number("time", time, least=-math.inf)
  pairs = zip(frames.times[:-1], frames.times[1:], strict=True)
  if any(before >= after for before, after in pairs):
    raise WireError("the times of the frames do not ascend")
  if len(frames.chunks) != (1 if frames.codec == H264 else num):
    raise WireError(f"{len(frames.chunks)} chunks for {num} frames")
  for chunk in frames.chunks:
    if frames.codec == RAW and len(chunk) != height * width * 3:
      raise WireError(f"{len(chunk)} bytes for {height}x{width} pixels")
    if not chunk:
      raise WireError("an empty frame")


def _pack_update(update):
  payload = update.payload
  return b"".join(
    (
      _UPDATE.pack(*update[:-1]),
      _PAYLOAD.pack(
        payload_lib.ENCODINGS.index(payload.encoding),
        payload_lib.DTYPES.index(payload.dtype),
        payload.num_coords,
        payload.num_chosen,
        len(payload.mask),
      ),
      payload.mask,
      payload.values,
    )
  )


def _unpack_update(reader):
  fields = reader.unpack(_UPDATE)
  encoding, dtype, *counts, num_bytes = reader.unpack(_PAYLOAD)
  encoding = _name(payload_lib.ENCODINGS, encoding)
  dtype = _name(payload_lib.DTYPES, dtype)
  mask, values = reader.take(num_bytes), reader.rest()
  return Update(*fields, Payload(encoding, dtype, *counts, mask, values))


def _check_update(update, limits):
  _check_bytes("session", update.session, SESSION_BYTES)
  _check_bytes("layout", update.layout, DIGEST_BYTES)
  is_full = update.payload.encoding == payload_lib.FULL
  if update.new_version < update.base_version + (not is_full):
    raise WireError(
      f"an update from version {update.base_version} to {update.new_version}"
    )
  _check_number("sampling rate", update.sampling_rate)
  _check_number("training period", update.training_period)
  payload_lib.check(update.payload, limits)


def _check_heartbeat(heartbeat, limits):
  del limits
  _check_number("time", heartbeat.time, least=-math.inf)


def _unpack_error(reader):
  try:
    return Error(reader.rest().decode())
  except UnicodeDecodeError:
    raise WireError("the text of an error is no text") from None


def _check_error(error, limits):
  del limits
  if len(error.text.encode()) > MAX_TEXT or not error.text.isprintable():
    raise WireError(f"an error is a line of up to {MAX_TEXT} bytes")


def _check_bytes(name, value, size):
  if len(value) != size:
    raise WireError(f"a {name} of {len(value)} bytes, not {size}")


def _check_number(name, value, least=0.0):
  if not (math.isfinite(value) and value >= least):
    raise WireError(f"a {name} of {value}")


def _name(names, number):
  if number >= len(names):
    raise WireError(f"number {number}, and {', '.join(names)} are known")
  return names[number]


class Kind(NamedTuple):
  """A row of the table."""

  type: type
  pack: Callable[[Message], bytes]
  unpack: Callable[[Reader], Message]
  check: Callable[[Message, Limits], None]  # raises a WireError


def _plain(type_, numbers, check=lambda message, limits: None):
  """A kind whose body is its fields."""
  pack = lambda message: numbers.pack(*message)
  return Kind(type_, pack, lambda r: type_(*r.unpack(numbers)), check)


# A kind's number is its place.
KINDS = (
  Kind(Hello, _pack_hello, _unpack_hello, _check_hello),
  _plain(Welcome, _WELCOME, _check_welcome),
  Kind(Frames, _pack_frames, _unpack_frames, _check_frames),
  Kind(Update, _pack_update, _unpack_update, _check_update),
  _plain(Ack, _VERSION),
  _plain(Resync, _VERSION),
  _plain(Heartbeat, _TIME, _check_heartbeat),
  Kind(Error, lambda error: error.text.encode(), _unpack_error, _check_error),
  _plain(Bye, struct.Struct("")),
)

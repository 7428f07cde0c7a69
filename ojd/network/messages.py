"""The messages between a server and a device, and their bytes.

A message is a head (magic, protocol version, CRC32 of all else) and a body in
msgpack: an array of the kind's name and its fields. A client says Hello, a
server Welcome; then key frames go up and updates of the weights come down, each
acknowledged with the version that the device holds. A device that holds another
version than an update is based on asks for all weights. Access is not
decided here, and nothing is secret.

A field's annotation bounds its bytes before they take memory; `__post_init__`
checks fields against each other.
"""

import numbers
import struct
import typing
import zlib
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from ojd.streams.base import MAX_SIDE

VERSION = 2  # of the protocol
MAX_BYTES = 1 << 26  # of a message, unless the server allows less
SESSION_BYTES = DIGEST_BYTES = 16
NO_SESSION = bytes(SESSION_BYTES)
MAX_ARRAYS = 1 << 14  # of a student
MAX_VERSION = (1 << 63) - 1  # of weights; the server counts on from a device's
RAW, JPEG, H264 = "raw", "jpeg", "h264"
FULL, STATIC, GZIP, GAPS = "full", "static", "gzip", "gaps"

_MAGIC = b"OJDW"
_START = struct.Struct("<4sB")  # magic, version
_CHECKSUM = struct.Struct("<I")
_HEAD_BYTES = _START.size + _CHECKSUM.size
_FIRST_HEAD = struct.Struct("<4sBBI")  # magic, version 1, kind, bytes of body
_FIRST_ERROR = 7  # the kind of an Error in version 1
_MAX_SHOWN = 120  # characters of a library's words

Codec = Literal["raw", "jpeg", "h264"]
CODECS = typing.get_args(Codec)
Dtype = Literal["float32", "float16"]
DTYPES = typing.get_args(Dtype)
Encoding = Literal["full", "static", "gzip", "gaps"]
Session = Annotated[
  bytes, Meta(min_length=SESSION_BYTES, max_length=SESSION_BYTES)
]
Digest = Annotated[
  bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)
]
Version = Annotated[int, Meta(ge=0, le=MAX_VERSION)]
Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
Moment = Annotated[float, Meta(ge=-1e12, le=1e12)]  # seconds
Data = Annotated[bytes, Meta(max_length=MAX_BYTES)]
Chunk = Annotated[bytes, Meta(min_length=1, max_length=MAX_BYTES)]
_MAX_FRAMES = 1 << 12


class WireError(ValueError):
  """Bytes that are no message, or values that cannot be one; one line."""


class VersionError(WireError):
  """A peer speaks another version of the protocol."""

  def __init__(self, version: int):
    super().__init__(
      f"protocol {VERSION} is spoken here and {version} there; use the same "
      "release of ojd at both ends"
    )
    self.version = version


class Terms(NamedTuple):
  """The size of a device's frames, and the classes of its student."""

  height: Side
  width: Side
  fps: Annotated[float, Meta(gt=0, le=1000)]  # frame t is seen at t / fps
  codec: Codec  # H264: all frames of a training period as one clip
  # `person;auto=car,bus`, as `ojd.labels.parse_groups` reads it
  classes: Annotated[str, Meta(max_length=1 << 14)]


class Schedule(NamedTuple):
  """When a device sends key frames; 0 is no condition."""

  stride: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0  # frames between keys
  sampling_rate: Annotated[float, Meta(ge=0, le=1e9)] = 0.0  # keys a second
  training_period: Moment = 0.0  # seconds between updates


class Payload(NamedTuple):
  """Which coordinates of the weights are new, and their values."""

  encoding: Encoding
  dtype: Dtype
  mask: Data  # empty where both ends know it
  values: Data  # little-endian, of the chosen ones in their order

  @property
  def num_chosen(self) -> int:
    """How many values there are."""
    return len(self.values) // (4 if self.dtype == "float32" else 2)


class _Message(
  msgspec.Struct,
  array_like=True,
  forbid_unknown_fields=True,
  frozen=True,
  tag=str.lower,
):
  """What is common to all kinds."""


class Hello(_Message):
  """A client's first message."""

  layout: Digest  # of names and shapes, as if all of them trained
  terms: Terms
  weights: Digest = bytes(DIGEST_BYTES)  # of those that it holds
  session: Session = NO_SESSION  # one to be taken up again
  version: Version = 0  # of the weights that it holds

  def __post_init__(self):
    if not self.terms.classes.isprintable():
      raise WireError("the classes are a line of text")


class Welcome(_Message):
  """The server's answer to it."""

  session: Session
  version: Version  # of the weights that the server has
  schedule: Schedule  # so far
  wants_weights: bool  # whether the device is to send those that it holds
  # A bit for each array, by sorted name: is it trained?
  trainable: Annotated[bytes, Meta(max_length=MAX_ARRAYS // 8)]


class Frames(_Message):
  """Key frames, upwards; the bytes of the images are not checked here."""

  codec: Codec
  height: Side
  width: Side
  # Of the frames, by the stream, ascending.
  times: Annotated[
    tuple[Moment, ...], Meta(min_length=1, max_length=_MAX_FRAMES)
  ]
  # One a frame; of H264 one for all.
  chunks: Annotated[tuple[Chunk, ...], Meta(max_length=_MAX_FRAMES)]

  def __post_init__(self):
    pairs = zip(self.times[:-1], self.times[1:], strict=True)
    if any(before >= after for before, after in pairs):
      raise WireError("the times of the frames do not ascend")
    num = len(self.times)
    if len(self.chunks) != (1 if self.codec == H264 else num):
      raise WireError(f"{len(self.chunks)} chunks for {num} frames")
    size = 3 * self.height * self.width
    if self.codec == RAW and any(len(chunk) != size for chunk in self.chunks):
      raise WireError(f"a frame of {self.height}x{self.width} has {size} bytes")


class Update(_Message):
  """New values of weights, and the schedule from here on."""

  session: Session
  base_version: Version  # of the weights that it fits; all values fit any
  new_version: Version  # of what they become
  layout: Digest
  schedule: Schedule
  payload: Payload

  def __post_init__(self):
    is_full = self.payload.encoding == FULL
    if self.new_version < self.base_version + (not is_full):
      raise WireError(
        f"an update from version {self.base_version} to {self.new_version}"
      )


class Ack(_Message):
  """The device holds all of these weights."""

  version: Version


class Resync(_Message):
  """The device asks for all weights: an update did not fit its own."""

  version: Version


class Heartbeat(_Message):
  """A sign of life of a device, which the server returns."""

  time: Moment


class Error(_Message):
  """Why the connection ends, in one line."""

  text: Annotated[str, Meta(max_length=1000)]
  is_final: bool = False  # whether it would end so another time

  def __post_init__(self):
    if not self.text.isprintable():
      raise WireError("an error is a line of text")


class Bye(_Message):
  """The connection ends without an error."""


Message = (
  Hello | Welcome | Frames | Update | Ack | Resync | Heartbeat | Error | Bye
)


def _plain(value):
  """A number of numpy's, or a fraction, as Python has it."""
  if isinstance(value, numbers.Integral):
    return int(value)
  if isinstance(value, numbers.Real):
    return float(value)
  raise TypeError(f"a {type(value).__name__} in a message")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plain)
_DECODER = msgspec.msgpack.Decoder(Message)


def encode(message: Message, max_bytes: int = MAX_BYTES) -> bytes:
  """The bytes of a message.

  Raises:
    WireError: `decode` would not take them.
  """
  try:
    body = _ENCODER.encode(message)
  except (ValueError, OverflowError, TypeError) as error:
    kind = type(message).__name__
    raise WireError(f"this {kind} cannot be ({_shown(error)})") from None
  _check_size(_HEAD_BYTES + len(body), max_bytes)
  _decode_body(body)
  start = _START.pack(_MAGIC, VERSION)
  return start + _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(start))) + body


def decode(data: bytes, max_bytes: int = MAX_BYTES) -> Message:
  """The message; it takes about as much memory as its bytes.

  Raises:
    VersionError: it is one of another version of the protocol.
    WireError: the bytes are not exactly one message.
  """
  _check_size(len(data), max_bytes)
  data = memoryview(data)
  if data[: len(_MAGIC)] != _MAGIC:
    raise WireError("this is no message of the protocol")
  if len(data) < _HEAD_BYTES:
    raise WireError("the message is cut off")
  _, version = _START.unpack(data[: _START.size])
  if not _is_intact(data, version):
    raise WireError("the checksum of the message is wrong")
  if version != VERSION:
    raise VersionError(version)
  return _decode_body(data[_HEAD_BYTES:])


def refusal(version: int, text: str) -> bytes:
  """An Error for a peer of another version, in its format if known."""
  if version != 1:
    return encode(Error(text, is_final=True))
  body = b"\1" + text.encode()
  head = _FIRST_HEAD.pack(_MAGIC, version, _FIRST_ERROR, len(body))
  return head + body + _CHECKSUM.pack(zlib.crc32(head + body))


def _is_intact(data, version):
  """Whether the checksum is right; version 1 has it at the end."""
  if version == 1:
    start, checksum, rest = (
      data[: -_CHECKSUM.size],
      data[-_CHECKSUM.size :],
      b"",
    )
  else:
    start, rest = data[: _START.size], data[_HEAD_BYTES:]
    checksum = data[_START.size : _HEAD_BYTES]
  return _CHECKSUM.unpack(checksum)[0] == zlib.crc32(rest, zlib.crc32(start))


def _decode_body(body):
  try:
    return _DECODER.decode(body)
  except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
    raise WireError(f"a message that cannot be ({_shown(error)})") from None


def _check_size(size, max_bytes):
  if size > max_bytes:
    raise WireError(f"a message of {size} bytes, and {max_bytes} are the most")


def _shown(error):
  """A library's message as a short line."""
  words = " ".join(str(error).split())[:_MAX_SHOWN]
  return "".join(c if c.isprintable() else "?" for c in words)

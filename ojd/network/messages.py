"""What a server and a device say to each other, and the bytes of each.

Every kind is a NamedTuple with a function that packs its body, and one that
unpacks and checks it; `KINDS` is the table of them.
"""

import math
import struct
from collections.abc import Callable
from typing import NamedTuple

from ojd.network import handshake
from ojd.network import payload as payload_lib
from ojd.network.handshake import CODECS as CODECS
from ojd.network.handshake import H264 as H264
from ojd.network.handshake import JPEG as JPEG
from ojd.network.handshake import NO_SESSION as NO_SESSION
from ojd.network.handshake import RAW as RAW
from ojd.network.handshake import SESSION_BYTES as SESSION_BYTES
from ojd.network.handshake import Hello as Hello
from ojd.network.handshake import Terms as Terms
from ojd.network.handshake import Welcome as Welcome
from ojd.network.layout import DIGEST_BYTES
from ojd.network.limits import Limits, WireError
from ojd.network.payload import Payload
from ojd.network.reader import Reader, check_bytes, check_number, name_of

MAX_TEXT = 1000  # bytes

_FRAMES = struct.Struct("<BHHHH")  # codec, height, width, times, chunks
_UPDATE = struct.Struct("<16sQQ16sIdd")
_PAYLOAD = struct.Struct("<BBIII")  # encoding, dtype, P, chosen, bytes of mask
_VERSION = struct.Struct("<Q")
_TIME = struct.Struct("<d")


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
  """A device is there, and the server sends it back."""

  time: float


class Error(NamedTuple):
  """Why the connection ends, in one line."""

  text: str
  is_final: bool = False  # whether it would end so another time


class Bye(NamedTuple):
  """It ends, and nothing is wrong."""


Message = (
  Hello | Welcome | Frames | Update | Ack | Resync | Heartbeat | Error | Bye
)


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
  return Frames(name_of(CODECS, codec), height, width, times, chunks)


def _check_frames(frames, limits):
  num, height, width = len(frames.times), frames.height, frames.width
  if not 0 < num <= limits.max_frames:
    raise WireError(f"{num} frames, and {limits.max_frames} are the most")
  if not (height and width):
    raise WireError(f"frames of {height}x{width} pixels")
  for time in frames.times:
    check_number("time", time, least=-math.inf)
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
  encoding = name_of(payload_lib.ENCODINGS, encoding)
  dtype = name_of(payload_lib.DTYPES, dtype)
  mask, values = reader.take(num_bytes), reader.rest()
  return Update(*fields, Payload(encoding, dtype, *counts, mask, values))


def _check_update(update, limits):
  check_bytes("session", update.session, SESSION_BYTES)
  check_bytes("layout", update.layout, DIGEST_BYTES)
  is_full = update.payload.encoding == payload_lib.FULL
  least = update.base_version + (not is_full)
  if not least <= update.new_version <= handshake.MAX_VERSION:
    raise WireError(
      f"an update from version {update.base_version} to {update.new_version}"
    )
  check_number("sampling rate", update.sampling_rate)
  check_number("training period", update.training_period)
  payload_lib.check(update.payload, limits)


def _check_heartbeat(heartbeat, limits):
  del limits
  check_number("time", heartbeat.time, least=-math.inf)


def _pack_error(error):
  return bytes([error.is_final]) + error.text.encode()


def _unpack_error(reader):
  (is_final,) = reader.take(1)
  if is_final > 1:
    raise WireError(f"a yes or no of {is_final}")
  try:
    return Error(reader.rest().decode(), bool(is_final))
  except UnicodeDecodeError:
    raise WireError("the text of an error is no text") from None


def _check_error(error, limits):
  del limits
  if len(error.text.encode()) > MAX_TEXT or not error.text.isprintable():
    raise WireError(f"an error is a line of up to {MAX_TEXT} bytes")


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
  Kind(
    Hello,
    handshake.pack_hello,
    handshake.unpack_hello,
    handshake.check_hello,
  ),
  Kind(
    Welcome,
    handshake.pack_welcome,
    handshake.unpack_welcome,
    handshake.check_welcome,
  ),
  Kind(Frames, _pack_frames, _unpack_frames, _check_frames),
  Kind(Update, _pack_update, _unpack_update, _check_update),
  _plain(Ack, _VERSION),
  _plain(Resync, _VERSION),
  _plain(Heartbeat, _TIME, _check_heartbeat),
  Kind(Error, _pack_error, _unpack_error, _check_error),
  _plain(Bye, struct.Struct("")),
)

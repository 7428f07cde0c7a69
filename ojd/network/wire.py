"""Messages between a server that trains and a device that predicts, as bytes.

A message is a head (magic, protocol version, kind, bytes of the body), a body
(`messages`) and the CRC32 of both; numbers are little-endian. A client says
Hello, a server Welcome; then key frames go up and updates of the weights come
down, each acknowledged with the version that the device holds. A device that
holds another version than an update is based on asks for all weights. Who may
connect is not settled here, and nothing is secret.
"""

import struct
import zlib

from ojd.network.limits import LIMITS, Limits, WireError
from ojd.network.messages import KINDS, Message
from ojd.network.reader import Reader

VERSION = 1
_MAGIC = b"OJDW"
_HEAD = struct.Struct("<4sBBI")  # magic, version, kind, bytes of the body
_CHECKSUM = struct.Struct("<I")
HEAD_BYTES = _HEAD.size

_NUMBERS = {kind.type: number for number, kind in enumerate(KINDS)}


def encode(message: Message, limits: Limits = LIMITS) -> bytes:
  """The bytes of a message.

  Raises:
    WireError: `decode` would not take them.
  """
  number = _NUMBERS[type(message)]
  kind = KINDS[number]
  try:
    body = kind.pack(message)
  except (struct.error, ValueError, OverflowError, TypeError) as error:
    raise WireError(f"this {kind.type.__name__} cannot be ({error})") from None
  kind.check(message, limits)
  head = _HEAD.pack(_MAGIC, VERSION, number, len(body))
  _check_size(len(body), limits)
  checksum = zlib.crc32(body, zlib.crc32(head))
  return b"".join((head, body, _CHECKSUM.pack(checksum)))


def num_bytes(head: bytes, limits: Limits = LIMITS) -> int:
  """The bytes of the whole message that begins with these HEAD_BYTES.

  Raises:
    WireError: no message begins so, or it is too large.
  """
  return _unpack_head(head, limits)[1]


def decode(data: bytes, limits: Limits = LIMITS) -> Message:
  """The message again; it takes no more memory than the limits say.

  Raises:
    WireError: these are not the bytes of a message, or not of it alone.
  """
  data = bytes(data)
  number, size = _unpack_head(data[:HEAD_BYTES], limits)
  if len(data) != size:
    raise WireError(f"a message of {len(data)} bytes, not {size}")
  signed, checksum = data[: -_CHECKSUM.size], data[-_CHECKSUM.size :]
  if zlib.crc32(signed) != _CHECKSUM.unpack(checksum)[0]:
    raise WireError("the checksum of the message is wrong")
  kind, reader = KINDS[number], Reader(signed[HEAD_BYTES:])
  message = kind.unpack(reader)
  if reader.rest():
    raise WireError("something follows the message")
  kind.check(message, limits)
  return message


def _unpack_head(head, limits):
  """(number of the kind, bytes of the message)."""
  if len(head) != HEAD_BYTES:
    raise WireError("the message is cut off")
  magic, version, number, num_body = _HEAD.unpack(head)
  if magic != _MAGIC:
    raise WireError("this is no message of the protocol")
  if version != VERSION:
    raise WireError(f"a message of version {version}; only {VERSION} is known")
  if number >= len(KINDS):
    raise WireError(f"a message of an unknown kind, {number}")
  return number, _check_size(num_body, limits)


def _check_size(num_body, limits):
  size = HEAD_BYTES + num_body + _CHECKSUM.size
  if size > limits.max_bytes:
    raise WireError(
      f"a message of {size} bytes, and {limits.max_bytes} are the most"
    )
  return size

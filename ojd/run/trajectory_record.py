"""What the trajectory keeps of one question put to the teacher."""

import struct
from typing import NamedTuple

from ojd.errors import UserError
from ojd.formats import label_codec
from ojd.types import Labels

KEY, EVAL, FAILED = "key", "eval", "failed"
KINDS = (KEY, EVAL, FAILED)

_MAX_PROBLEM_BYTES = 1 << 16
_START = struct.Struct("<Bq")  # kind, t
_DECISION = struct.Struct("<6q4dBH")  # whole numbers, floats, bytes of hashes
_NONE = -1  # of the two whole numbers that may be missing


class Decision(NamedTuple):
  """What was learnt on a key frame, and what came of it."""

  num_updates: int
  num_rolled_back: int
  stride: int
  next_key: int
  miou_before: float
  miou_after: float
  loss: float  # may be infinite or NaN, as may all of these
  grad_norm: float
  params_hash: str  # of the student afterwards; hexadecimal, as is the next
  leaf_hashes: str = ""  # of its single arrays (`state_arrays.Marks`)
  # Frames the labels were late, or what was learnt of them over a link.
  delay: int | None = None
  key_t: int | None = None  # the frame that they are of, where it is not t


class Record(NamedTuple):
  """A question put to the teacher, and its answer.

  `packed` is decoded only on demand: many readers want no labels.
  """

  t: int  # frame at which it was settled
  kind: str  # "key": learnt from, "eval": only judged by, "failed": no answer
  decision: Decision | None = None  # of a key
  packed: bytes = b""  # labels of a key or an eval, by `label_codec`
  problem: str = ""  # of a failure

  def labels(self) -> Labels | None:
    """What the teacher saw; None where it failed."""
    if self.kind == FAILED:
      return None
    try:
      return label_codec.decode(self.packed)
    except ValueError as error:
      raise UserError(
        f"the labels of frame {self.t} are damaged ({error})"
      ) from None


def key(t: int, labels: Labels, decision: Decision) -> Record:
  """The record of labels that were learnt from."""
  return Record(t, KEY, decision, label_codec.encode(labels))


def evaluation(t: int, labels: Labels) -> Record:
  """The record of labels that the student was only judged by."""
  return Record(t, EVAL, packed=label_codec.encode(labels))


def failure(t: int, problem: str) -> Record:
  """The record of a question without an answer; of a long story the head."""
  # Names of files may hold what is no text.
  text = problem.encode(errors="backslashreplace")[:_MAX_PROBLEM_BYTES]
  return Record(t, FAILED, problem=text.decode(errors="ignore"))


def pack(record: Record) -> bytes:
  """The bytes of a record; ValueError if it cannot be one."""
  try:
    start = _START.pack(KINDS.index(record.kind), record.t)
    if record.kind == FAILED:
      return start + record.problem.encode()
    if not record.packed:
      raise ValueError(f"no labels in the record of frame {record.t}")
    if record.kind == KEY:
      start += _pack_decision(record.decision)
  except (struct.error, AttributeError, TypeError) as error:
    raise ValueError(f"no record of frame {record.t}: {error}") from None
  return start + record.packed


def _pack_decision(decision):
  late = (decision.delay, decision.key_t)
  wholes = (*decision[:4], *(x for x in late if x is not None))
  if min(wholes) < 0:
    raise ValueError(f"a negative number in {decision}")
  hashes = [_bytes_of(x) for x in (decision.params_hash, decision.leaf_hashes)]
  late = (_NONE if x is None else x for x in late)
  floats = decision[4:8]
  numbers = _DECISION.pack(*decision[:4], *late, *floats, *map(len, hashes))
  return numbers + b"".join(hashes)


def _bytes_of(text):
  content = bytes.fromhex(text)
  if content.hex() != text:
    raise ValueError(f"a hash is not {text!r}")
  return content


def unpack_start(payload: bytes) -> tuple[int, str]:
  """Frame and kind of a record; ValueError if it is none."""
  if len(payload) < _START.size or payload[0] >= len(KINDS):
    raise ValueError("no record")
  number, t = _START.unpack_from(payload)
  return t, KINDS[number]


def unpack(payload: bytes) -> Record:
  """The record again; ValueError or struct.error if it is none."""
  t, kind = unpack_start(payload)
  rest = payload[_START.size :]
  if kind == FAILED:
    return Record(t, kind, problem=rest.decode())
  if kind == EVAL:
    return Record(t, kind, packed=rest)
  *numbers, first, second = _DECISION.unpack_from(rest)
  wholes, floats = numbers[:6], numbers[6:]
  late = (None if x == _NONE else x for x in wholes[4:])
  middle = _DECISION.size + first
  end = middle + second
  if len(rest) < end:
    raise ValueError("it is cut off")
  hashes = rest[_DECISION.size : middle].hex(), rest[middle:end].hex()
  decision = Decision(*wholes[:4], *floats, *hashes, *late)
  return Record(t, kind, decision, packed=rest[end:])

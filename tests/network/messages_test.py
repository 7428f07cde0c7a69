"""Messages come back as they went, and an enemy's end in one line."""

import fractions
import struct
import subprocess
import sys
import tracemalloc
import zlib

import hypothesis
import msgspec
import numpy as np
import pytest
from hypothesis import strategies as st

from ojd.network import mask_code, messages, weights
from ojd.network.messages import (
  Ack,
  Error,
  Frames,
  Hello,
  Schedule,
  VersionError,
  Welcome,
  WireError,
)
from tests.reference import hostile

SESSION, DIGEST = bytes(range(16)), bytes(range(16, 32))
TERMS = messages.Terms(480, 640, 25.0, "jpeg", "person;auto=car,bus")


def _held():
  rng = np.random.default_rng(0)
  params = {
    "a/kernel": rng.normal(size=(3, 3, 60)).astype(np.float16),
    "b/bias": rng.normal(size=60).astype(np.float16),
  }
  params = {name: array.astype(np.float32) for name, array in params.items()}
  layout = weights.layout_of(params, ["b/bias"])
  return weights.Weights(params, layout, 3)


def _updates():
  held = _held()
  mask = np.random.default_rng(1).random(held.layout.num_coords) < 0.05
  for chosen, code, dtype in (
    *((mask, code, "float16") for code in mask_code.CODES),
    (~mask, messages.GAPS, "float32"),
    (messages.STATIC, None, "float32"),
    (messages.FULL, None, "float16"),
  ):
    update, _ = weights.advance(
      *(held, held.params, chosen),
      **{"dtype": dtype, "code": code, "session": SESSION},
      schedule=Schedule(8, 0.5, 10.0),
    )
    yield update


def _messages():
  pixels = bytes(range(24))
  return [
    Hello(DIGEST, TERMS),
    Hello(DIGEST, TERMS._replace(codec="h264"), SESSION, SESSION, 7),
    Welcome(SESSION, 7, Schedule(8), False, b""),
    Welcome(SESSION, 0, Schedule(0, 0.5, 10.0), True, b"\x80\x01"),
    Frames("raw", 2, 4, (0.5, 1.0), (pixels, pixels[::-1])),
    Frames("jpeg", 480, 640, (-1.0, 0.25), (b"one", b"another")),
    Frames("h264", 480, 640, (0.0, 0.1, 0.2), (b"all of them",)),
    *_updates(),
    Ack(8),
    messages.Resync(2**63 - 1),
    messages.Heartbeat(-1.5),
    Error("no such session; say hello again: \u00e9"),
    Error("", is_final=True),
    messages.Bye(),
  ]


def test_messages_come_back():
  kinds = set()
  for message in _messages():
    data = messages.encode(message)
    for form in (bytes, bytearray, memoryview):
      got = messages.decode(form(data))
      assert got == message and type(got) is type(message)
    assert messages.encode(got) == data
    kinds.add(type(message))
  assert kinds == set(messages.Message.__args__)


def test_ack_counted_by_hand():
  body = b"\x92\xa3ack\xcd\x01\x02"  # an array of two: a text, a number
  checksum = struct.pack("<I", zlib.crc32(b"OJDW\2" + body))
  assert messages.encode(Ack(258)) == b"OJDW\2" + checksum + body


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
  st.binary(min_size=16, max_size=16),
  st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=9, unique=True),
  st.data(),
)
def test_any_frames_come_back(session, times, data):
  chunks = [data.draw(st.binary(min_size=1)) for _ in times]
  frames = Frames("jpeg", 3, 8192, tuple(sorted(times)), tuple(chunks))
  assert messages.decode(messages.encode(frames)) == frames
  terms = TERMS._replace(classes=data.draw(st.text().filter(str.isprintable)))
  hello = Hello(session, terms, session, session, len(chunks))
  assert messages.decode(messages.encode(hello)) == hello


def test_numbers_of_any_library_travel():
  """A container says its rate as a fraction, time stamps make it numpy's."""
  for fps in (np.float64(12.5), fractions.Fraction(25, 2), np.float32(12.5)):
    hello = Hello(DIGEST, TERMS._replace(height=np.int64(480), fps=fps))
    found = messages.decode(messages.encode(hello)).terms
    assert found == TERMS._replace(fps=12.5) and type(found.fps) is float


_HELLO = Hello(DIGEST, TERMS)
_WELCOME = Welcome(SESSION, 1, Schedule(8), False, b"")
_UPDATE = next(_updates())
_FRAMES = Frames("jpeg", 1, 1, (0.0,), (b"x",))


def _of_terms(**change):
  return _HELLO, {"terms": TERMS._replace(**change)}


def _scheduled(**change):
  return _UPDATE, {"schedule": Schedule(**change)}


@pytest.mark.parametrize(
  ("message", "change", "words"),
  [
    (*_of_terms(codec="png"), "enum value 'png'"),
    (_HELLO, {"layout": DIGEST[1:]}, "length >= 16"),
    (_HELLO, {"weights": b""}, "length >= 16"),
    (_HELLO, {"session": SESSION + b"x"}, "length <= 16"),
    (_HELLO, {"version": 2**63}, "cannot be"),
    (*_of_terms(width=0), "`int` >= 1"),
    (*_of_terms(height=8193), "`int` <= 8192"),
    (*_of_terms(fps=0.0), "`float` > 0"),
    (*_of_terms(fps=float("inf")), "`float` <= 1000"),
    (*_of_terms(classes="a\nb"), "a line"),
    (*_of_terms(classes="a" * 16385), "length <= 16384"),
    (_WELCOME, {"session": b""}, "length >= 16"),
    (_WELCOME, {"schedule": Schedule(8, -1.0)}, "`float` >= 0"),
    (_WELCOME, {"trainable": bytes(2049)}, "length <= 2048"),
    (Ack(1), {"version": -1}, "`int` >= 0"),
    (messages.Heartbeat(0.0), {"time": float("nan")}, "`float`"),
    (Error(""), {"text": "two\nlines"}, "a line"),
    (Error(""), {"text": "x" * 1001}, "length <= 1000"),
    (Error(""), {"text": "\ud800"}, "a line"),
    (_FRAMES, {"codec": "png"}, "enum value 'png'"),
    (_FRAMES, {"height": 0}, "`int` >= 1"),
    (_FRAMES, {"times": (), "chunks": ()}, "length >= 1"),
    (_FRAMES, {"times": (0.0,) * 4097, "chunks": (b"x",) * 4097}, "ascend"),
    (_FRAMES, {"chunks": (b"",)}, "length >= 1"),
    (_FRAMES, {"times": (1.0, 1.0), "chunks": (b"x",) * 2}, "do not ascend"),
    (_FRAMES, {"times": (float("inf"),)}, "`float` <="),
    (_FRAMES, {"times": (0.0, 1.0)}, "1 chunks for 2 frames"),
    (
      _FRAMES,
      {"codec": "h264", "times": (0.0, 1.0), "chunks": (b"x",) * 2},
      "2 chunks for 2",
    ),
    (_FRAMES, {"codec": "raw"}, "1x1 has 3 bytes"),
    (_UPDATE, {"session": b""}, "length >= 16"),
    (_UPDATE, {"layout": b""}, "length >= 16"),
    (_UPDATE, {"new_version": 3}, "from version 3 to 3"),
    (_UPDATE, {"new_version": 1 << 63}, "cannot be"),
    (*_scheduled(stride=-1), "`int` >= 0"),
    (*_scheduled(sampling_rate=-0.5), "`float` >= 0"),
    (*_scheduled(training_period=float("inf")), "`float` <="),
  ],
)
def test_what_cannot_be_a_message_is_not_sent(message, change, words):
  with pytest.raises(WireError, match=words) as error:
    messages.encode(msgspec.structs.replace(message, **change))
  assert "\n" not in str(error.value)


def _signed(body):
  return hostile.signed(b"OJDW\2" + bytes(4) + body)


_BYE = messages.encode(messages.Bye())
_LONG = b"\xdd\xff\xff\xff\xff"  # an array of 2^32 - 1


@pytest.mark.parametrize(
  ("data", "words"),
  [
    (b"", "no message of the protocol"),
    (b"OJDW", "cut off"),
    (b"dear diary, today", "no message of the protocol"),
    (
      hostile.signed(b"OJDW\3" + _BYE[5:]),
      "protocol 2 is spoken here and 3 there",
    ),
    (b"OJDW\3" + _BYE[5:], "checksum"),
    (_BYE + b"x", "checksum"),
    (_BYE[:-1], "checksum"),
    (_BYE[:-1] + b"x", "checksum"),
    (hostile.signed(_BYE + b"x"), "trailing"),
    (hostile.signed(messages.encode(Ack(1))[:-1]), "truncated"),
    (_signed(b""), "truncated"),
    (_signed(b"\xc0"), "Expected `array`, got `None`"),
    (_signed(b"\x90"), "at least length 1"),
    (_signed(b"\x91\xa4buy?"), "Invalid value 'buy"),
    (_signed(b"\x92\xa3ack" + b"\x91" * 5000), "got `array`"),
    (_signed(b"\x92\xa3ack\xa11"), "got `str`"),
    (_signed(b"\x93\xa3ack\x01\x01"), "of at most length 1"),
    (_signed(b"\x93\xa5error\xa1\xff\xc2"), "cannot be"),
    (_signed(b"\x93\xa5error\xa1\n\xc2"), "a line"),
    (_signed(b"\x93\xa5error\xa1a\x02"), "got `int`"),
    (_signed(b"\x96\xa6frames\xa4jpeg\1\1" + _LONG), "length <= 4096"),
    (_signed(b"\x92\xa9heartbeat\xcb\x7f\xf0" + bytes(6)), "`float` <="),
    (_signed(b"\x92" + b"\xa3a\nb" * 2), "Invalid value"),
    (_signed(_LONG), "truncated"),
  ],
)
def test_what_is_no_message_is_refused(data, words):
  with pytest.raises(WireError, match=words) as error:
    messages.decode(data)
  assert "\n" not in str(error.value)


def test_size_is_bounded_before_anything_is_read():
  data = messages.encode(_UPDATE)
  assert messages.decode(data, len(data)) == _UPDATE
  for call, content in ((messages.decode, data), (messages.encode, _UPDATE)):
    with pytest.raises(WireError, match=f"{len(data) - 1} are the most"):
      call(content, len(data) - 1)


@pytest.mark.parametrize(
  ("encoding", "words"), [("gzip", "unpack to 76 bytes"), ("gaps", "mask")]
)
def test_bomb_takes_no_memory(encoding, words):
  bomb = zlib.compressobj(9, wbits=31 if encoding == "gzip" else -15)
  packed = bomb.compress(bytes(1 << 28)) + bomb.flush()
  payload = _UPDATE.payload._replace(encoding=encoding, mask=packed)
  held = _held()
  update = msgspec.structs.replace(
    _UPDATE, payload=payload, layout=held.layout.digest
  )
  data = messages.encode(update)
  tracemalloc.start()
  with pytest.raises(WireError, match=words):
    weights.apply(held, messages.decode(data))
  assert tracemalloc.get_traced_memory()[1] < 1 << 23
  tracemalloc.stop()


def test_peer_of_another_version_hears_why_in_its_own_words():
  with pytest.raises(VersionError, match="2 is spoken here and 1 there") as e:
    messages.decode(hostile.FIRST_HELLO)
  assert e.value.version == 1
  told = messages.refusal(1, "why")
  # As version 1 read it: magic, version, kind, bytes of the body, checksum.
  magic, version, kind, size = struct.unpack("<4sBBI", told[:10])
  assert (magic, version, kind, size) == (b"OJDW", 1, 7, 4)
  assert told[10:14] == b"\1why"
  assert struct.unpack("<I", told[14:]) == (zlib.crc32(told[:14]),)
  newer = messages.decode(messages.refusal(3, "why"))
  assert newer == Error("why", is_final=True)


def test_any_flipped_byte_is_refused():
  rng = np.random.default_rng(0)
  for message in _messages():
    whole = messages.encode(message)
    places = range(len(whole))
    if len(whole) > 400:
      places = [*range(120), *rng.integers(120, len(whole), 200)]
    for place in places:
      data = bytearray(whole)
      data[place] ^= int(rng.integers(1, 256))
      with pytest.raises(WireError):
        messages.decode(data)


def test_20000_messages_of_an_enemy():
  held, rng = _held(), np.random.default_rng(2)
  valid = [messages.encode(message) for message in _messages()]
  num_refused = num_applied = 0
  for data in hostile.messages(valid, 20_000, rng):
    try:
      message = messages.decode(data)
      if isinstance(message, messages.Update):
        change = {"layout": held.layout.digest, "base_version": held.version}
        change["new_version"] = held.version + 1
        message = msgspec.structs.replace(message, **change)
        params = weights.apply(held, message).params
        assert all(np.isfinite(array).all() for array in params.values())
        num_applied += 1
    except WireError as error:
      num_refused += 1
      assert "\n" not in str(error) and len(str(error)) < 200
  assert num_refused > 10_000 and num_applied > 300


def test_device_needs_numpy_alone():
  code = (
    "import sys; from ojd.network import messages, simulation, weights\n"
    "assert not {'jax', 'torch', 'flax'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True)

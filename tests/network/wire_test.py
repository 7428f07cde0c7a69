"""Messages come back as they went, and an enemy's end in one line."""

import struct
import subprocess
import sys
import tracemalloc
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ojd.network import handshake, mask_code, messages, payload, weights, wire
from ojd.network import layout as layout_lib
from ojd.network.limits import Limits, WireError
from ojd.network.messages import Ack, Error, Frames, Hello, Welcome
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
  layout = layout_lib.layout_of(params, ["b/bias"])
  return weights.Weights(params, layout, 3)


def _updates():
  held = _held()
  mask = np.random.default_rng(1).random(held.layout.num_coords) < 0.05
  for chosen, code, dtype in (
    *((mask, code, "float16") for code in mask_code.CODES),
    (~mask, mask_code.GAPS, "float32"),
    (payload.STATIC, None, "float32"),
    (payload.FULL, None, "float16"),
  ):
    update, _ = weights.advance(
      *(held, held.params, chosen),
      **{"dtype": dtype, "code": code, "session": SESSION},
      schedule=weights.Schedule(8, 0.5, 10.0),
    )
    yield update


def _messages():
  pixels = bytes(range(24))
  return [
    Hello((1, 2), DIGEST, TERMS),
    Hello((1,), DIGEST, TERMS._replace(codec="h264"), SESSION, SESSION, 7),
    Welcome(SESSION, 1, 7, 8, 0.0, 0.0, False, b""),
    Welcome(SESSION, 1, 0, 0, 0.5, 10.0, True, b"\x80\x01"),
    Frames("raw", 2, 4, (0.5, 1.0), (pixels, pixels[::-1])),
    Frames("jpeg", 480, 640, (-1.0, 0.25), (b"one", b"another")),
    Frames("h264", 480, 640, (0.0, 0.1, 0.2), (b"all of them",)),
    *_updates(),
    Ack(8),
    messages.Resync(2**63),
    messages.Heartbeat(-1.5),
    Error("no such session; say hello again: \u00e9"),
    Error("", is_final=True),
    messages.Bye(),
  ]


def test_messages_come_back():
  kinds = set()
  for message in _messages():
    data = wire.encode(message)
    assert wire.num_bytes(data[: wire.HEAD_BYTES]) == len(data)
    for form in (bytes, bytearray, memoryview):
      got = wire.decode(form(data))
      assert got == message and type(got) is type(message)
    assert wire.encode(got) == data
    kinds.add(type(message))
  assert kinds == {kind.type for kind in messages.KINDS}


def test_ack_counted_by_hand():
  signed = b"OJDW" + bytes([1, 4]) + struct.pack("<IQ", 8, 258)
  assert wire.encode(Ack(258)) == signed + struct.pack("<I", zlib.crc32(signed))


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
  st.binary(min_size=16, max_size=16),
  st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=9, unique=True),
  st.data(),
)
def test_any_frames_come_back(session, times, data):
  chunks = [data.draw(st.binary(min_size=1)) for _ in times]
  frames = Frames("jpeg", 3, 65535, tuple(sorted(times)), tuple(chunks))
  assert wire.decode(wire.encode(frames)) == frames
  terms = TERMS._replace(classes=data.draw(st.text().filter(str.isprintable)))
  hello = Hello((1, 255), session, terms, session, session, len(chunks))
  assert wire.decode(wire.encode(hello)) == hello


_HELLO = Hello((1,), DIGEST, TERMS)
_WELCOME = Welcome(SESSION, 1, 1, 8, 0.0, 0.0, False, b"")
_UPDATE = next(_updates())


def _of_terms(**change):
  return _HELLO._replace(terms=TERMS._replace(**change))


def _frames(codec="jpeg", height=1, times=(0.0,), chunks=(b"x",)):
  return Frames(codec, height, 1, times, chunks)


@pytest.mark.parametrize(
  ("message", "words"),
  [
    (_HELLO._replace(protocols=()), "no version"),
    (_HELLO._replace(protocols=(256,)), "this Hello cannot be"),
    (_of_terms(codec="png"), "this Hello cannot be"),
    (_HELLO._replace(layout=DIGEST[1:]), "layout of 15 bytes"),
    (_HELLO._replace(weights=b""), "weights of 0 bytes"),
    (Hello((1,), DIGEST, TERMS, DIGEST, SESSION + b"x"), "session of 17"),
    (Hello((1,), DIGEST, TERMS, DIGEST, SESSION, 2**63), "of version"),
    (_of_terms(width=0), "480x0 pixels"),
    (_of_terms(height=65536), "this Hello cannot be"),
    (_of_terms(fps=0.0), "0.0 frames a second"),
    (_of_terms(classes="a\nb"), "a line"),
    (_of_terms(classes="a" * 16385), "a line"),
    (_WELCOME._replace(session=b""), "session of 0 bytes"),
    (_WELCOME._replace(sampling_rate=-1.0), "sampling rate of -1.0"),
    (_WELCOME._replace(trainable=bytes(2049)), "16392 arrays"),
    (Ack(-1), "this Ack cannot be"),
    (messages.Heartbeat(float("nan")), "time of nan"),
    (Error("two\nlines"), "a line"),
    (Error("x" * 1001), "a line"),
    (Error("\ud800"), "this Error cannot be"),
    (_frames("png"), "this Frames cannot be"),
    (_frames(height=0), "0x1 pixels"),
    (_frames(times=(), chunks=()), "0 frames"),
    (_frames(chunks=(b"",)), "empty frame"),
    (_frames(times=(1.0, 1.0), chunks=(b"x", b"y")), "do not ascend"),
    (_frames(times=(float("inf"),)), "time of inf"),
    (_frames(times=(0.0, 1.0)), "1 chunks for 2 frames"),
    (_frames("h264", 1, (0.0, 1.0), (b"x", b"y")), "2 chunks for 2"),
    (_frames("raw"), "1 bytes for 1x1 pixels"),
    (_UPDATE._replace(session=b""), "session of 0 bytes"),
    (_UPDATE._replace(layout=b""), "layout of 0 bytes"),
    (_UPDATE._replace(new_version=3), "from version 3 to 3"),
    (_UPDATE._replace(new_version=1 << 63), "to 9223372036854775808"),
    (_UPDATE._replace(stride=-1), "this Update cannot be"),
    (_UPDATE._replace(sampling_rate=-0.5), "sampling rate of -0.5"),
    (_UPDATE._replace(training_period=float("inf")), "training period of inf"),
  ],
)
def test_what_cannot_be_a_message_is_not_sent(message, words):
  with pytest.raises(WireError, match=words) as error:
    wire.encode(message)
  assert "\n" not in str(error.value)


def _changed(message, place, content):
  data = bytearray(wire.encode(message))
  data[place : place + len(content)] = content
  return hostile.signed(bytes(data))


_CLASSES = wire.HEAD_BYTES + handshake._HELLO.size
_COUNTS = wire.HEAD_BYTES + messages._UPDATE.size


@pytest.mark.parametrize(
  ("data", "words"),
  [
    (b"", "cut off"),
    (b"OJDW", "cut off"),
    (b"dear diary, today", "no message of the protocol"),
    (_changed(messages.Bye(), 4, b"\2"), "version 2; only 1 is known"),
    (_changed(messages.Bye(), 5, b"\x09"), "unknown kind, 9"),
    (wire.encode(messages.Bye()) + b"x", "15 bytes, not 14"),
    (wire.encode(Ack(1))[:-1], "21 bytes, not 22"),
    (wire.encode(messages.Bye())[:-1] + b"x", "checksum"),
    (hostile.signed(wire.encode(Ack(1)) + b"x"), "something follows"),
    (hostile.signed(wire.encode(Ack(1))[:-1]), "cut off"),
    (_changed(Error("ab"), 11, b"\xff"), "no text"),
    (_changed(Error("ab"), 11, b"\n"), "a line"),
    (_changed(Error("ab"), 10, b"\2"), "a yes or no of 2"),
    (_changed(_HELLO, _CLASSES, b"\xff"), "no text"),
    (_changed(_WELCOME, wire.HEAD_BYTES + 45, b"\2"), "a yes or no of 2"),
    (_changed(messages.Heartbeat(0.0), 16, b"\xf0\x7f"), "time of inf"),
    (_changed(_UPDATE, _COUNTS, b"\x05"), "number 5, and full, static"),
    (_changed(_UPDATE, _COUNTS + 1, b"\x02"), "number 2, and float32"),
    (_changed(_UPDATE, _COUNTS + 2, b"\xff" * 4), "4294967295 coordinates"),
    (_changed(_UPDATE, _COUNTS + 6, b"\xff" * 3), "16777215 values for 600"),
    (_changed(_UPDATE, _COUNTS + 10, b"\xff" * 4), "cut off"),
    (_changed(_UPDATE, _COUNTS + 10, b"\x4a"), "bytes for"),
  ],
)
def test_what_is_no_message_is_refused(data, words):
  with pytest.raises(WireError, match=words) as error:
    wire.decode(data)
  assert "\n" not in str(error.value)


def test_limits_hold_before_anything_is_read():
  data = wire.encode(_UPDATE)
  frames = wire.encode(_frames("h264", times=(0.0, 1.0)))
  assert wire.decode(data, Limits(max_bytes=len(data))) == _UPDATE
  small = Limits(max_bytes=len(data) - 1)
  for call, content, limits, words in (
    (wire.num_bytes, data[: wire.HEAD_BYTES], small, ""),
    (wire.decode, data, small, ""),
    (wire.encode, _UPDATE, small, ""),
    (wire.decode, data, Limits(max_coords=599), "600 coordinates, and 599 "),
    (wire.decode, frames, Limits(max_frames=1), "2 frames, and 1 "),
  ):
    with pytest.raises(WireError, match=f"{words}are the most"):
      call(content, limits)


def test_bomb_takes_no_memory():
  bomb = zlib.compressobj(9, wbits=31)
  packed = bomb.compress(bytes(1 << 28)) + bomb.flush()
  change = {"encoding": mask_code.GZIP, "mask": packed}
  update = _UPDATE._replace(payload=_UPDATE.payload._replace(**change))
  held, data = _held(), wire.encode(update)
  tracemalloc.start()
  with pytest.raises(WireError, match="does not unpack to 76 bytes"):
    weights.apply(held, wire.decode(data)._replace(layout=held.layout.digest))
  assert tracemalloc.get_traced_memory()[1] < 1 << 23
  tracemalloc.stop()


def test_any_flipped_byte_is_refused():
  rng = np.random.default_rng(0)
  for message in _messages():
    whole = wire.encode(message)
    places = range(len(whole))
    if len(whole) > 400:
      places = [*range(120), *rng.integers(120, len(whole), 200)]
    for place in places:
      data = bytearray(whole)
      data[place] ^= int(rng.integers(1, 256))
      with pytest.raises(WireError):
        wire.decode(data)


def test_20000_messages_of_an_enemy():
  held, rng = _held(), np.random.default_rng(2)
  valid = [wire.encode(message) for message in _messages()]
  num_refused = num_applied = 0
  for data in hostile.messages(valid, 20_000, rng):
    try:
      message = wire.decode(data)
      if isinstance(message, messages.Update):
        params = payload.apply(held.params, held.layout, message.payload)
        assert all(np.isfinite(array).all() for array in params.values())
        num_applied += 1
    except WireError as error:
      num_refused += 1
      assert "\n" not in str(error) and len(str(error)) < 200
  assert num_refused > 10_000 and num_applied > 300


def test_device_needs_numpy_alone():
  code = (
    "import sys; from ojd.network import link, weights, wire\n"
    "assert not {'jax', 'torch', 'flax'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True)

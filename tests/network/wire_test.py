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

from ojd.network import (
  handshake,
  mask_code,
  messages,
  payload,
  weights,
  wire,
)
from ojd.network import layout as layout_lib
from ojd.network.limits import Limits, WireError
from ojd.network.messages import (
  Ack,
  Bye,
  Error,
  Frames,
  Heartbeat,
  Hello,
  Resync,
  Terms,
  Update,
  Welcome,
)

SESSION, DIGEST = bytes(range(16)), bytes(range(16, 32))
TERMS = Terms(480, 640, 25.0, "jpeg", "person;auto=car,bus")


def _quick(test):
  return hypothesis.settings(max_examples=100, deadline=None)(test)


def _held():
  rng = np.random.default_rng(0)
  params = {
    "a/kernel": rng.normal(size=(3, 3, 60)).astype(np.float32),
    "b/bias": rng.normal(size=60).astype(np.float32),
  }
  layout = layout_lib.layout_of(params, ["b/bias"])
  return weights.Weights(params, layout, 3)


def _updates():
  held = _held()
  vector = layout_lib.ravel(held.params, held.layout)
  rounded = vector.astype(np.float16).astype(np.float32)
  params = layout_lib.unravel(rounded, held.layout)
  held = held._replace(params=params)
  mask = np.random.default_rng(1).random(vector.size) < 0.05
  choices = [
    *(
      (mask, code, dtype) for code in mask_code.CODES for dtype in ("float16",)
    ),
    (~mask, mask_code.GAPS, "float32"),
    (payload.STATIC, None, "float32"),
    (payload.FULL, None, "float16"),
  ]
  for chosen, code, dtype in choices:
    update, _ = weights.advance(
      *(held, params, chosen),
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
    Resync(2**63),
    Heartbeat(-1.5),
    Error("no such session; say hello again: \u00e9"),
    Error("", is_final=True),
    Bye(),
  ]


def _signed(message):
  """The bytes of a message whose length and checksum are made right."""
  length = struct.pack("<I", len(message) - wire.HEAD_BYTES - 4)
  signed = message[:6] + length + message[10:-4]
  return signed + struct.pack("<I", zlib.crc32(signed))


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


@_quick
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


_WELCOME = Welcome(SESSION, 1, 1, 8, 0.0, 0.0, False, b"")


@pytest.mark.parametrize(
  ("message", "words"),
  [
    (Hello((), DIGEST, TERMS), "no version"),
    (Hello((256,), DIGEST, TERMS), "this Hello cannot be"),
    (Hello((1,), DIGEST[1:], TERMS), "layout of 15 bytes"),
    (Hello((1,), DIGEST, TERMS, b""), "weights of 0 bytes"),
    (Hello((1,), DIGEST, TERMS, DIGEST, SESSION + b"x"), "session of 17"),
    (Hello((1,), DIGEST, TERMS, DIGEST, SESSION, 2**63), "of version"),
    (Hello((1,), DIGEST, TERMS._replace(width=0)), "480x0 pixels"),
    (Hello((1,), DIGEST, TERMS._replace(height=65536)), "this Hello cannot be"),
    (Hello((1,), DIGEST, TERMS._replace(fps=0.0)), "0.0 frames a second"),
    (Hello((1,), DIGEST, TERMS._replace(fps=float("nan"))), "nan frames"),
    (Hello((1,), DIGEST, TERMS._replace(codec="png")), "this Hello cannot be"),
    (Hello((1,), DIGEST, TERMS._replace(classes="a\nb")), "a line"),
    (Hello((1,), DIGEST, TERMS._replace(classes="a" * 16385)), "a line"),
    (_WELCOME._replace(session=b""), "session of 0 bytes"),
    (_WELCOME._replace(stride=-1), "this Welcome cannot be"),
    (_WELCOME._replace(sampling_rate=-1.0), "sampling rate of -1.0"),
    (_WELCOME._replace(trainable=bytes(2049)), "16392 arrays"),
    (Ack(-1), "this Ack cannot be"),
    (Ack(1.5), "this Ack cannot be"),
    (Resync(2**64), "this Resync cannot be"),
    (Heartbeat(float("nan")), "time of nan"),
    (Error("two\nlines"), "a line"),
    (Error("x" * 1001), "a line"),
    (Error("\ud800"), "this Error cannot be"),
    (Frames("png", 1, 1, (0.0,), (b"x",)), "this Frames cannot be"),
    (Frames("jpeg", 0, 1, (0.0,), (b"x",)), "0x1 pixels"),
    (Frames("jpeg", 1, 1, (), ()), "0 frames"),
    (Frames("jpeg", 1, 1, (0.0,), (b"",)), "empty frame"),
    (Frames("jpeg", 1, 1, (1.0, 1.0), (b"x", b"y")), "do not ascend"),
    (Frames("jpeg", 1, 1, (float("inf"),), (b"x",)), "time of inf"),
    (Frames("jpeg", 1, 1, (0.0, 1.0), (b"x",)), "1 chunks for 2 frames"),
    (Frames("h264", 1, 1, (0.0, 1.0), (b"x", b"y")), "2 chunks for 2"),
    (Frames("raw", 1, 1, (0.0,), (b"x",)), "1 bytes for 1x1 pixels"),
  ],
)
def test_what_cannot_be_a_message_is_not_sent(message, words):
  with pytest.raises(WireError, match=words) as error:
    wire.encode(message)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"session": b""}, "session of 0 bytes"),
    ({"layout": b""}, "layout of 0 bytes"),
    ({"new_version": 3}, "from version 3 to 3"),
    ({"stride": -1}, "this Update cannot be"),
    ({"sampling_rate": -0.5}, "sampling rate of -0.5"),
    ({"training_period": float("inf")}, "training period of inf"),
  ],
)
def test_what_cannot_be_an_update_is_not_sent(change, words):
  update = next(_updates())._replace(**change)
  with pytest.raises(WireError, match=words):
    wire.encode(update)


def _changed(message, place, content):
  data = bytearray(wire.encode(message))
  data[place : place + len(content)] = content
  return _signed(bytes(data))


_UPDATE = next(_updates())
_CLASSES = wire.HEAD_BYTES + handshake._HELLO.size
_COUNTS = wire.HEAD_BYTES + messages._UPDATE.size


@pytest.mark.parametrize(
  ("data", "words"),
  [
    (b"", "cut off"),
    (b"OJDW", "cut off"),
    (b"dear diary, today", "no message of the protocol"),
    (_changed(Bye(), 4, b"\2"), "version 2; only 1 is known"),
    (_changed(Bye(), 5, b"\x09"), "unknown kind, 9"),
    (wire.encode(Bye()) + b"x", "15 bytes, not 14"),
    (wire.encode(Ack(1))[:-1], "21 bytes, not 22"),
    (wire.encode(Bye())[:-1] + b"x", "checksum"),
    (_signed(wire.encode(Ack(1)) + b"x"), "something follows"),
    (_signed(wire.encode(Ack(1))[:-1]), "cut off"),
    (_changed(Error("ab"), 11, b"\xff"), "no text"),
    (_changed(Error("ab"), 11, b"\n"), "a line"),
    (_changed(Error("ab"), 10, b"\2"), "a yes or no of 2"),
    (_changed(Hello((1,), DIGEST, TERMS), _CLASSES, b"\xff"), "no text"),
    (_changed(_WELCOME, wire.HEAD_BYTES + 45, b"\2"), "a yes or no of 2"),
    (_changed(Heartbeat(0.0), 16, b"\xf0\x7f"), "time of inf"),
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
  assert wire.decode(data, Limits(max_bytes=len(data))) == _UPDATE
  head = data[: wire.HEAD_BYTES]
  for call in (wire.num_bytes, wire.decode):
    with pytest.raises(WireError, match="are the most"):
      content = head if call is wire.num_bytes else data
      call(content, Limits(max_bytes=len(data) - 1))
  with pytest.raises(WireError, match="600 coordinates, and 599 are the most"):
    wire.decode(data, Limits(max_coords=599))
  frames = wire.encode(Frames("h264", 9, 9, (0.0, 1.0), (b"x",)))
  with pytest.raises(WireError, match="2 frames, and 1 are the most"):
    wire.decode(frames, Limits(max_frames=1))
  with pytest.raises(WireError, match="are the most"):
    wire.encode(_UPDATE, Limits(max_bytes=len(data) - 1))


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


def _mutated(data, others, rng):
  """Bytes changed, cut out, put in, or the end of another message."""
  data = bytearray(data)
  for _ in range(rng.integers(1, 4)):
    place = int(rng.integers(0, len(data) + 1))
    # Half of the time in the head and what follows it: there is more to break.
    if rng.random() < 0.5:
      place = min(place, int(rng.integers(4, 130)))
    num = int(rng.integers(1, 9))
    what = rng.integers(0, 4)
    if what == 0:
      data[place : place + num] = rng.bytes(min(num, len(data) - place))
    elif what == 1:
      del data[place : place + num]
    elif what == 2:
      data[place:place] = bytes([rng.integers(0, 256)]) * num
    else:
      other = others[rng.integers(0, len(others))]
      data[place:] = other[place:]
  return bytes(data)


def test_20000_messages_of_an_enemy():
  held = _held()
  valid = [wire.encode(message) for message in _messages()]
  rng = np.random.default_rng(2)
  num_refused = num_applied = 0
  for i in range(20_000):
    data = _mutated(valid[i % len(valid)], valid, rng)
    if i % 20 == 0:
      data = rng.bytes(rng.integers(0, 200))
    elif i % 4 and len(data) >= wire.HEAD_BYTES + 4:
      data = _signed(data)
    try:
      message = wire.decode(data)
      if isinstance(message, Update):
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

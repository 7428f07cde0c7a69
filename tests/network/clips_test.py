"""Clips keep to their bits, and are for both ends the same frames."""

import functools
import io
import time

import av
import numpy as np
import pytest
from PIL import Image

from ojd.network import clips, h264
from ojd.network.messages import WireError
from tests.reference import pictures

SIZE = 96, 160


def _moving(num, size=SIZE):
  return list(pictures.views(num, *size, 7, 5))


def _psnr(frames, others):
  pairs = zip(frames, others, strict=True)
  errors = [np.mean((a.astype(float) - b) ** 2) for a, b in pairs]
  return 10 * np.log10(255**2 / np.mean(errors))


def _clip(frames, kbps=200.0, rate=1.0, size=SIZE, writer=None):
  """The bytes of a clip, and what its writer says that it shows."""
  writer = writer or clips.ClipWriter(*size, kbps, rate)
  seen = [writer.add(frame) for frame in frames]
  return writer.finish(), seen


def _x264(frames, pixels="yuv420p", size=SIZE, **options):
  """A stream of the usual encoder, without the help of what is tested."""
  context = av.CodecContext.create("libx264", "w")
  context.height, context.width = size
  context.pix_fmt, context.framerate = pixels, 25
  context.options = {"tune": "zerolatency"} | options
  images = [av.VideoFrame.from_ndarray(x, format="rgb24") for x in frames]
  packets = [p for image in images for p in context.encode(image)]
  return b"".join(bytes(p) for p in [*packets, *context.encode(None)])


@pytest.mark.parametrize(
  "size", [SIZE, (33, 47), (34, 47), (33, 48), (3, 5), (1, 1)], ids=str
)
def test_both_ends_have_the_same_frames(size):
  frames = _moving(4, size)
  data, seen = _clip(frames, size=size)
  back = clips.decode_clip(data, 4, *size)
  assert len(back) == 4
  for ours, theirs, frame in zip(seen, back, frames, strict=True):
    np.testing.assert_array_equal(ours, theirs)
    assert (theirs.shape, theirs.dtype) == ((*size, 3), np.uint8)
    assert np.abs(theirs.astype(int) - frame).mean() < 20


def _shown(planes):
  """What the standard makes of planes, in real numbers."""
  height, width = planes.shape[0] * 2 // 3, planes.shape[1]
  y = (planes[:height] - 16.0) / 219
  halves = planes[height:].reshape(2, height // 2, width // 2)
  size = width, height
  u, v = (Image.fromarray(x).resize(size, Image.BILINEAR) for x in halves)
  u, v = (np.asarray(x, float) / 224 - 128 / 224 for x in (u, v))
  red, blue = y + 1.402 * v, y + 1.772 * u
  green = (y - 0.299 * red - 0.114 * blue) / 0.587
  return np.clip(255 * np.stack([red, green, blue], -1), 0, 255)


def test_any_player_shows_the_same():
  frames = _moving(5)
  data, seen = _clip(frames)
  with av.open(io.BytesIO(data), format="h264") as file:
    shown = [_shown(x.to_ndarray()) for x in file.decode(video=0)]
  assert np.abs(np.array(shown) - np.array(seen)).max() < 3
  assert _psnr(frames, seen) > 24


def test_the_budget_is_kept_and_used_and_buys_quality():
  frames, before = _moving(40), 0.0
  for kbps in (2, 4, 8, 16):
    writer, sizes, seen = clips.ClipWriter(*SIZE, kbps, 1), [], []
    for begin in range(0, 40, 10):
      assert writer.is_empty
      seen += [writer.add(frame) for frame in frames[begin : begin + 10]]
      assert not writer.is_empty
      sizes.append(len(writer.finish()))
    shares = np.array(sizes) / (125 * kbps * 10)
    assert 0.85 < shares.mean() < 1.05, shares
    assert shares.max() < 1.2, shares
    quality = _psnr(frames, seen)
    assert quality > before + 1
    before = quality


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_clips_of_few_frames_keep_the_budget(rate):
  writer = clips.ClipWriter(*SIZE, 8 * rate, rate)
  sizes = [len(_clip([frame], writer=writer)[0]) for frame in _moving(20)]
  assert 0.85 < np.sum(sizes) / (20 * 1000) < 1.15
  assert max(sizes[5:]) < 1.2 * 1000


def test_more_bits_than_needed_are_not_spent():
  frames = _moving(10)
  sizes = [len(_clip(frames, kbps)[0]) for kbps in (1e3, 1e6, 1e12)]
  assert max(sizes) < 1.01 * min(sizes) < 125e3
  still = [frames[0]] * 10
  data, seen = _clip(still, 200)
  assert len(data) < 3 * len(_clip(still[:1], 200)[0])
  assert _psnr(still, seen) > 24


def test_what_easy_frames_leave_hard_ones_get():
  frames, writer = _moving(20)[:3], clips.ClipWriter(*SIZE, 8, 1)
  _clip([frames[0]] * 10, writer=writer)
  assert len(_clip(frames, writer=writer)[0]) > 1.15 * len(_clip(frames, 8)[0])


def test_clips_stand_alone_and_a_writer_goes_on_where_another_stopped():
  frames = _moving(8)
  writers = [clips.ClipWriter(*SIZE, 8, 1) for _ in range(2)]
  assert len({_clip(frames[:4], writer=each)[0] for each in writers}) == 1
  writers.append(clips.ClipWriter(*SIZE, 8, 1, spare=writers[0].spare))
  made = [_clip(frames[4:], writer=writer) for writer in writers]
  assert len({data for data, _ in made}) == 1
  assert len({writer.spare for writer in writers}) == 1
  back = clips.decode_clip(made[0][0], 4, *SIZE)
  np.testing.assert_array_equal(back, made[0][1])


def test_colours_are_those_of_the_standard():
  rng = np.random.default_rng(0)
  flat = rng.integers(0, 256, (50, 1, 1, 3), np.uint8)
  for frame in flat:
    r, g, b = frame[0, 0] / 255.0
    planes = clips.yuv_of_rgb(np.broadcast_to(frame, (4, 6, 3)))
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    blue, red = (b - luma) / 1.772, (r - luma) / 1.402
    assert np.abs(planes[:4] - (16 + 219 * luma)).max() < 0.51
    found = planes[4:].reshape(2, 6)
    exact = 128 + 224 * np.array([[blue], [red]])
    assert np.abs(found - exact).max() < 0.51
    back = clips.rgb_of_yuv(planes)
    assert np.abs(back.astype(int) - frame).max() <= 2
  smooth = np.asarray(
    Image.fromarray(flat[:12].reshape(3, 4, 3)).resize((80, 60), 3)
  )
  assert _psnr([clips.rgb_of_yuv(clips.yuv_of_rgb(smooth))], [smooth]) > 42


@pytest.mark.parametrize(
  "options",
  [
    {"x264-params": "cabac=0:8x8dct=0:weightp=0"},  # of profile Baseline
    {"x264-params": "8x8dct=0:aud=1"},  # Main
    {"preset": "slower"},  # High
    {"x264-params": "keyint=2:bframes=2:rc-lookahead=5"},
  ],
  ids=str,
)
def test_clips_of_other_encoders_are_read(options):
  frames = _moving(6)
  back = clips.decode_clip(_x264(frames, **options), 6, *SIZE)
  assert _psnr(frames, back) > 20


@functools.cache
def _refused():
  frames = _moving(3)
  data, _ = _clip(frames)
  other = _clip(_moving(1, (64, 80)), size=(64, 80))[0]
  return {
    "empty": (b"", "no H.264"),
    "no start": (b"\1" + data, "no H.264"),
    "one too few": (_clip(frames[:2])[0], "2 pictures, not 3"),
    "one too many": (_clip(_moving(4))[0], "more than 3"),
    "no key frame": (b"\0\0\1\x41\x9a" + bytes([9] * 9), "1 pictures"),
    "another size": (_x264(frames[:2]) + other, "64x80 pixels, not 96x160"),
    "slices": (_x264(frames, **{"x264-params": "slices=2"}), "several slices"),
    "fields": (_x264(frames, **{"x264-params": "interlaced=1"}), "fields"),
    "4:4:4": (_x264(frames, "yuv444p"), "profile 244"),
    "10 bits": (_x264(frames, "yuv420p10le"), "profile 110"),
    "full range": (_x264(frames, "yuvj420p"), "yuvj420p"),
    "cut off": (data[:-30], "cannot be decoded|damaged"),
    "partition": (data + b"\0\0\1\x22\x80", "kind 2"),
    "units without end": (data + 1000 * b"\0\0\1\x06\x80", "units"),
  }


@pytest.mark.parametrize("name", _refused())
def test_other_clips_are_refused(name, capfd):
  data, words = _refused()[name]
  with pytest.raises(WireError, match=words) as info:
    clips.decode_clip(data, 3, *SIZE)
  assert "\n" not in str(info.value)
  assert capfd.readouterr() == ("", "")


def test_a_bomb_is_refused_by_its_parameters():
  data = bytearray(_clip(_moving(1))[0])
  begin = data.index(b"\x67")
  # Of all the sizes that a few bits can make, no decoder sees one.
  sizes = set()
  for where in range(8 * (begin + 4), 8 * (begin + 14)):
    changed = bytearray(data)
    changed[where // 8] ^= 128 >> where % 8
    try:
      h264.split(bytes(changed), 1, *SIZE)
    except WireError as error:
      sizes.add(str(error))
  assert sum("pixels, not" in words for words in sizes) > 5
  with pytest.raises(WireError, match="frames of"):
    clips.decode_clip(bytes(data), 1, 65535, 65535)


def test_damage_is_frames_or_an_error(capfd):
  size = 40, 64
  data, _ = _clip(_moving(4, size), size=size)
  rng = np.random.default_rng(0)
  damaged = [data[:n] for n in range(0, len(data), 11)]
  for where in [*range(8 * 60), *rng.integers(0, 8 * len(data), 600)]:
    changed = bytearray(data)
    changed[where // 8] ^= 1 << where % 8
    damaged.append(bytes(changed))
  damaged += [data[:50] + rng.bytes(300) for _ in range(50)]
  damaged += [b"\0\0\1" + rng.bytes(300) for _ in range(50)]
  num_read, begin = 0, time.monotonic()
  for changed in damaged:
    try:
      frames = clips.decode_clip(changed, 4, *size)
    except WireError as error:
      assert "\n" not in str(error)
    else:
      assert [frame.shape for frame in frames] == [(*size, 3)] * 4
      num_read += 1
  assert 0 < num_read < len(damaged)
  assert time.monotonic() - begin < 60
  assert capfd.readouterr() == ("", "")


def test_what_a_writer_refuses():
  writer = clips.ClipWriter(*SIZE, 8, 1)
  with pytest.raises(ValueError, match="no frames"):
    writer.finish()
  for frame in (np.zeros((96, 161, 3), np.uint8), np.zeros((*SIZE, 3))):
    with pytest.raises(ValueError, match="a frame is"):
      writer.add(frame)
  for kbps, rate in ((0, 1), (8, 0), (-1, 1), (float("nan"), 1)):
    with pytest.raises(ValueError, match="kbps at"):
      clips.ClipWriter(*SIZE, kbps, rate)

"""Video files: every frame once, upright, in its place, from any start."""

import contextlib
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import av
import numpy as np
import pytest
from PIL import Image

from ojd.streams import base, video, video_file
from tests.reference import videos
from tests.reference.refusals import refused
from tests.reference.videos import H, W

N = 40
_NOBODY = 65534  # of the users
GOP = {"g": "12", "bf": "2"}
PARAMS = "keyint=12:min-keyint=12:bframes=3:log-level=none"
X265 = {"x265-params": PARAMS}
VPX = {"g": "12", "deadline": "realtime", "cpu-used": "8"}
LOSSLESS = ("ffv1", "bgr0")
# Around the key frames, near both ends and beyond.
STARTS = (*range(1, 6), *range(10, 16), 20, *range(23, 26), *range(35, N + 2))
STARTS += (130, 200)


def _write(path, *args, num=N, size=(H, W), **kwargs):
  images = [videos.image(t, *size) for t in range(num)]
  return videos.write(path, images, *args, **kwargs)


def _open(path, *size):
  return base.open_stream(f"video:{path}", *size)


def _numbers(samples):
  """The number that each frame carries, -1 for a lost one."""
  return [-1 if s.frame is None else videos.number(s.frame) for s in samples]


def _play(path, *size):
  """What is known of a file, and its frames; any of them can be the first."""
  stream = _open(path, *size)
  whole = list(stream.read())
  assert [s.t for s in whole] == list(range(stream.spec.num_frames))
  for start in STARTS:
    for a, b in zip(stream.read(start), whole[start:], strict=True):
      assert (a.t, a.seconds, a.problem) == (b.t, b.seconds, b.problem)
      np.testing.assert_array_equal(a.frame, b.frame)
  return stream.spec, whole


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  path = tmp_path_factory.mktemp("video") / "clip.mp4"
  return _write(path, options=GOP)


@pytest.mark.parametrize(
  ("codec", "pix_fmt", "ending", "options"),
  [
    (codec, pix_fmt, ending, options)
    for codec, pix_fmt, endings, options in (
      ("libx264", "yuv420p", "mp4 mkv avi mov ts flv h264", GOP),
      ("libx264", "yuv444p", "mp4", GOP),
      ("libx264", "yuv420p10le", "mkv", GOP),
      ("libx265", "yuv420p", "mp4 mkv", X265),
      ("libvpx-vp9", "yuv420p", "webm mp4", VPX),
      ("libvpx", "yuv420p", "webm", VPX),
      ("libsvtav1", "yuv420p", "mp4 webm", {"preset": "12"}),
      ("mjpeg", "yuvj420p", "avi mov mkv", {}),
      ("mpeg4", "yuv420p", "avi mp4", GOP),
      ("mpeg2video", "yuv420p", "mpg", GOP),
      ("ffv1", "yuv420p", "mkv avi", GOP),
      ("libx264", "yuv420p", "mp4", GOP | {"x264-params": "open-gop=1"}),
      ("libx265", "yuv420p", "mkv", {"x265-params": f"{PARAMS}:open-gop=1"}),
      ("gif", "rgb8", "gif", {}),
      ("apng", "rgb24", "apng", {}),
    )
    for ending in endings.split()
  ],
)
def test_codecs_and_containers(tmp_path, codec, pix_fmt, ending, options):
  path = _write(tmp_path / f"a.{ending}", codec, pix_fmt, options=options)
  spec, samples = _play(path)
  assert (spec.height, spec.width, spec.source_size) == (H, W, (H, W))
  assert spec[2:5] == (25, N, ()) and not spec.is_live
  assert _numbers(samples) == list(range(N))
  for sample in samples:
    assert sample.truth is None and not sample.problem
    assert sample.frame.shape == (H, W, 3)
    assert sample.frame.dtype == np.uint8
    error = np.abs(sample.frame.astype(int) - videos.image(sample.t))
    assert error.mean() < (20 if codec == "gif" else 14)
    # Raw H.264 is the one kind here that has no stamps.
    expected = None if ending == "h264" else pytest.approx(sample.t / 25)
    assert sample.seconds == expected


def test_late_start_decodes_from_a_key_frame_nearby(clip, monkeypatch):
  stream = _open(clip)
  fed, demux = [], video_file.demux

  def count(*args):
    for packet in demux(*args):
      fed.append(packet.pts)
      yield packet

  monkeypatch.setattr(video_file, "demux", count)
  assert [s.t for s in stream.read(38)] == [38, 39]
  assert len(fed) <= 18  # two groups of frames at most, of four


STEPS = np.random.default_rng(0).integers(10, 400, N - 1)


@pytest.mark.parametrize(
  ("ending", "stamps"),
  [
    *((e, [500, *(500 + np.cumsum(STEPS))]) for e in ("mkv", "mp4")),
    # A pause is no loss.
    ("mkv", [40 * t + (2000 if t >= 20 else 0) for t in range(N)]),
  ],
)
def test_variable_rate_keeps_its_stamps(tmp_path, ending, stamps):
  stamps = [int(stamp) for stamp in stamps]
  path = _write(tmp_path / f"a.{ending}", options=GOP, stamps=stamps)
  spec, whole = _play(path)
  assert _numbers(whole) == list(range(N))
  seconds = [(stamp - stamps[0]) / 1000 for stamp in stamps]
  assert [s.seconds for s in whole] == pytest.approx(seconds, abs=1e-3)
  if len(set(np.diff(stamps))) > 2:
    assert spec.fps == pytest.approx((N - 1) / seconds[-1], rel=0.03)


# The matrix of the track header: a, b, c, d as in `orientation`.
@pytest.mark.parametrize(
  "matrix",
  [
    *[(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)],
    *[(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)],
  ],
)
def test_frames_stand_upright(tmp_path, matrix):
  a, b, c, d = matrix
  path = _write(tmp_path / "a.mp4", num=3, size=(40, 56), options={"crf": "1"})
  plain = next(_open(path).read()).frame
  nine = [a, b, 0, c, d, 0, 0, 0, 1 << 14]
  content = b"".join((x << 16).to_bytes(4, "big", signed=True) for x in nine)
  videos.patch(path, b"tkhd", 40, content)
  stream = _open(path)
  expected = np.zeros((56, 40, 3) if b else (40, 56, 3), np.uint8)
  for y, x in np.ndindex(plain.shape[:2]):
    # A negative index counts from the far side, as a turned picture does.
    u, v = a * x + c * y, b * x + d * y
    expected[v - (b + d < 0), u - (a + c < 0)] = plain[y, x]
  assert stream.spec.source_size == expected.shape[:2]
  np.testing.assert_array_equal(next(stream.read()).frame, expected)
  small = next(_open(path, 32, 48).read()).frame
  nearest = Image.fromarray(expected).resize((48, 32), Image.Resampling.NEAREST)
  assert np.abs(small - np.asarray(nearest, float)).mean() < 12


def test_orientation_is_known_beside_data_without_a_name():
  """PyAV fails on a frame with such data, but for the angle of its turn."""

  class Frame:
    @property
    def side_data(self):
      raise ValueError("1000 is not a valid Type")

  frame = Frame()
  for frame.rotation, expected in (
    *((0, (1, 0, 0, 1)), (90, (0, -1, 1, 0))),
    *((180, (-1, 0, 0, -1)), (-90, (0, 1, -1, 0))),
  ):
    assert video.orientation(frame) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [(65, 97), (33, 45), (97, 51)])
@pytest.mark.parametrize(
  ("codec", "pix_fmt", "ending"),
  [("mjpeg", "yuvj420p", "avi"), (*LOSSLESS, "mkv")],
)
def test_odd_sizes(tmp_path, size, codec, pix_fmt, ending):
  path = _write(tmp_path / f"a.{ending}", codec, pix_fmt, size=size)
  spec, samples = _play(path)
  assert (spec.height, spec.width) == size
  assert _numbers(samples) == list(range(N))
  if (codec, pix_fmt) == LOSSLESS:
    for sample in samples:
      np.testing.assert_array_equal(sample.frame, videos.image(sample.t, *size))
  # Each size asked for is given, odd ones too.
  small = next(_open(path, 35, 61).read(5))
  assert small.frame.shape == (35, 61, 3)


def test_deep_grey_and_see_through_sources_become_rgb(tmp_path):
  rgb = videos.image(77)
  grey16 = np.linspace(0, 65535, H * W).astype(np.uint16).reshape(H, W)
  alpha = np.full((H, W, 1), 255, np.uint8)
  bgra = np.concatenate([rgb[..., ::-1], alpha], -1)
  grey = np.repeat((grey16 / 257)[..., None], 3, -1)
  for pix_fmt, source, pixels, expected in [
    ("gray16le", "gray16le", grey16, grey),
    ("gray", "gray", (grey16 >> 8).astype(np.uint8), grey),
    ("bgra", "bgra", bgra, rgb),
    ("gbrp16le", "rgb48le", rgb.astype(np.uint16) * 257, rgb),
    ("gbrp10le", "rgb24", rgb, rgb),
  ]:
    path = tmp_path / f"{pix_fmt}.mkv"
    videos.write(path, [pixels] * 2, "ffv1", pix_fmt, source=source)
    frame = next(_open(path).read()).frame.astype(float)
    assert np.abs(frame - expected).max() <= 2, pix_fmt


@pytest.mark.parametrize(("matrix", "red"), [(1, 0.2126), (6, 0.299)])
def test_colours_follow_the_matrix_that_the_file_names(tmp_path, matrix, red):
  path = tmp_path / "a.mkv"
  with av.open(str(path), "w") as file:
    stream = file.add_stream("ffv1", rate=25)
    stream.height, stream.width, stream.pix_fmt = H, W, "yuv444p"
    stream.codec_context.colorspace = matrix
    stream.codec_context.color_range = 1
    planes = np.stack([np.full((H, W), v, np.uint8) for v in (81, 128, 240)])
    frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
    frame.colorspace, frame.color_range = matrix, 1
    file.mux(stream.encode(frame))
    file.mux(stream.encode())
  y, v = (81 - 16) * 255 / 219, 112 * 255 / 224
  colour = y + 2 * (1 - red) * v
  frame = next(_open(path).read()).frame
  assert abs(frame[..., 0].mean() - min(colour, 255)) < 3


def test_shrinking_averages(tmp_path):
  stripes = np.tile(np.uint8([[[200] * 3, [0] * 3]]), (128, 128, 1))
  videos.write(tmp_path / "a.mkv", [stripes], *LOSSLESS)
  frame = next(_open(tmp_path / "a.mkv", 32, 64).read()).frame
  assert np.abs(frame - 100.0).max() <= 4


@pytest.mark.parametrize(
  ("codec", "ending", "options"),
  [
    *[("libx264", e, GOP) for e in ("mp4", "mkv", "ts")],
    ("libx265", "mkv", X265),
    *[("libvpx-vp9", e, VPX) for e in ("mp4", "webm")],
    ("libsvtav1", "mp4", {"preset": "12", "g": "12"}),
    ("ffv1", "mkv", GOP),
  ],
)
def test_noise_in_the_middle_leaves_the_rest_in_its_place(
  tmp_path, codec, ending, options
):
  num = 250  # Matroska is found again at its next cluster, of five seconds
  path = tmp_path / f"a.{ending}"
  _write(path, codec, options=options, num=num, size=(96, 128))
  whole = bytearray(path.read_bytes())
  begin, end = 4 * len(whole) // 10, 5 * len(whole) // 10
  whole[begin:end] = np.random.default_rng(0).bytes(end - begin)
  path.write_bytes(whole)
  spec, samples = _play(path)
  assert spec.num_frames == num
  lost = [s for s in samples if s.frame is None]
  assert 5 <= len(lost) <= 150
  assert all(f"a.{ending}, frame {s.t}: " in s.problem for s in lost)
  assert lost[0].t >= 20 and lost[-1].t < num - 30
  stamps = [s.seconds for s in samples]
  assert stamps == pytest.approx([t / 25 for t in range(num)], abs=2e-3)
  # Where the noise begins inside a frame, the decoder may not notice it.
  numbers = _numbers(samples)
  assert sum(n not in (-1, t) for t, n in enumerate(numbers)) <= 1


def _spoil(byte):
  return lambda i, b: byte * len(b) if i == 15 else b


def _hide(i, content):
  return bytes([content[0] & ~0x10]) + content[1:] if i == 5 else content


@pytest.mark.parametrize(
  ("ending", "args", "options", "change", "lost", "num_lost"),
  [
    # What is built on a lost frame is lost too.
    ("mp4", ["libx264"], {"g": "12", "bf": "0"}, _spoil(b"\xff"), 15, 9),
    # Frames of Motion JPEG are lost alone.
    ("mov", ["mjpeg", "yuvj420p"], {}, _spoil(b"\0"), 15, 1),
    # Hidden frames of VP8 are none.
    ("webm", ["libvpx"], VPX, _hide, 5, 0),
  ],
)
def test_odd_packets(tmp_path, ending, args, options, change, lost, num_lost):
  path = _write(tmp_path / f"b.{ending}", *args, options=options)
  _, samples = _play(videos.rewrite(path, tmp_path / f"a.{ending}", change))
  rest = range(lost + (num_lost or 1), N)
  assert _numbers(samples) == [*range(lost), *[-1] * num_lost, *rest]


def test_file_of_one_frame_and_one_that_begins_between_key_frames(tmp_path):
  spec, samples = _play(_write(tmp_path / "a.mp4", num=1))
  assert _numbers(samples) == [0] and 0 < spec.fps < math.inf
  path = _write(tmp_path / "b.ts", options=GOP)
  videos.rewrite(path, tmp_path / "a.ts", lambda i, b: None if i < 5 else b)
  numbers = _numbers(_play(tmp_path / "a.ts")[1])
  assert numbers[-28:] == list(range(12, N)) and -1 not in numbers


def test_edit_list_hides_frames(tmp_path):
  path = _write(tmp_path / "a.mp4", options=GOP | {"bf": "0"})
  media = int.from_bytes(path.read_bytes().split(b"elst")[1][12:16], "big")
  step = 512  # of the time base that the muxer takes for this rate
  videos.patch(path, b"elst", 12, (media + 5 * step).to_bytes(4, "big"))
  _, whole = _play(path)
  assert _numbers(whole) == list(range(5, N))
  assert whole[0].seconds == 0


@pytest.mark.parametrize(
  ("ending", "codec", "options", "share", "num_whole"),
  [
    *[(e, "libx264", GOP, 0.6, 8) for e in ("mkv", "ts")],
    ("webm", "libvpx-vp9", VPX, 0.6, 8),
    ("mp4", "libx264", GOP, 0.8, 12),
  ],
)
def test_file_that_is_cut_short_is_played_to_there(
  tmp_path, ending, codec, options, share, num_whole
):
  # Of an MP4 the index comes first.
  flags = {"movflags": "faststart"} if ending == "mp4" else {}
  path = tmp_path / f"a.{ending}"
  _write(path, codec, options=options, container_options=flags)
  content = path.read_bytes()
  path.write_bytes(content[: int(share * len(content))])
  numbers = _numbers(_play(path)[1])
  assert len(numbers) < N and numbers[:num_whole] == list(range(num_whole))
  assert all(n in (-1, t) for t, n in enumerate(numbers))


def test_size_that_changes_is_made_the_first(tmp_path):
  whole = b""
  for i, size in enumerate([(H, W), (96, 64), (48, 160)]):
    part = tmp_path / f"{i}.h264"
    images = [videos.image(10 * i + t, *size) for t in range(10)]
    videos.write(part, images, options=GOP)
    whole += part.read_bytes()
  path = tmp_path / "a.h264"
  path.write_bytes(whole)
  for size in ((), (40, 200)):
    spec, samples = _play(path, *size)
    assert _numbers(samples) == list(range(30))
    assert {s.frame.shape[:2] for s in samples} == {size or (H, W)}
    assert spec.source_size == (H, W)


@pytest.mark.parametrize(
  "name",
  [
    *["a b.mp4", 'it\'s "it".mp4', "what?x=1.mp4", "Fußgänger 東京.mp4"],
    *["a:b.mp4", "%03d.mp4", "[1]*.mp4", "no_ending", "-y.mp4", "a%20b.mp4"],
  ],
)
def test_path_is_taken_literally(tmp_path, clip, name, monkeypatch):
  shutil.copy(clip, tmp_path / name)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  for path in (tmp_path / name, name, f"./{name}", f"~/{name}"):
    for uri in (f"video:{path}", str(path)):
      assert base.open_stream(uri).spec.identity == _open(clip).spec.identity


def _write_audio(path, has_cover):
  with av.open(str(path), "w") as file:
    stream = file.add_stream("aac", rate=8000, layout="mono")
    if has_cover:
      cover = file.add_stream("mjpeg", rate=1)
      cover.height, cover.width, cover.pix_fmt = H, W, "yuvj420p"
      cover.disposition = av.stream.Disposition.attached_pic
      image = av.VideoFrame.from_ndarray(videos.image(0), format="rgb24")
      file.mux([*cover.encode(image), *cover.encode()])
    samples = np.zeros((1, 1024), np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.rate = 8000
    file.mux([*stream.encode(frame), *stream.encode()])


def _refuse(path, *words):
  with refused("--stream", str(path), *words):
    _open(path)


def test_things_that_are_no_videos_are_refused(tmp_path, clip):
  _refuse(tmp_path / "nowhere.mp4", "no video file")
  _refuse(tmp_path, "is a folder", "folder:")
  path = tmp_path / "a.mp4"
  for has_cover in (False, True):
    _write_audio(path, has_cover)
    _refuse(path, "no video")
  whole = clip.read_bytes()
  for content in (b"", b"just a text\n" * 999, whole[: len(whole) // 2]):
    path.write_bytes(content)  # the last one is without its index
    _refuse(path, "not a video")
  os.mkfifo(tmp_path / "pipe.mp4")
  _refuse(tmp_path / "pipe.mp4", "no video file")
  for name in ("x" * 1500, "a\0b"):
    with refused("no video file"):
      _open(name)


def test_file_without_leave_is_refused(clip):
  # Not in pytest's folder, into which only its owner may go.
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    path = pathlib.Path(shutil.copy(clip, folder))
    path.parent.chmod(0o755)
    path.chmod(0)
    if os.geteuid() == 0:  # who may read every file
      os.seteuid(_NOBODY)
      stack.callback(os.seteuid, 0)
    _refuse(path, "Permission denied")


def test_playlists_open_no_other_file(tmp_path, clip):
  shutil.copy(clip, tmp_path / "clip.mp4")
  _write(tmp_path / "part.ts")
  part = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\n{}\n#EXT-X-ENDLIST\n"
  for name, content in (
    ("a.m3u8", part.format("part.ts")),
    ("a.mp4", "ffconcat version 1.0\nfile clip.mp4\n"),
    ("b.m3u8", part.format("http://127.0.0.1:9/part.ts")),
  ):
    (tmp_path / name).write_text(content)
    _refuse(tmp_path / name, "not a video")
  with av.open(str(tmp_path / "a.m3u8")) as container:  # it would be opened
    assert container.streams.video


def test_files_without_a_fit_frame_are_refused(tmp_path):
  path = _write(tmp_path / "whole.mp4", num=20)
  videos.rewrite(path, tmp_path / "a.mp4", lambda i, b: b"\xff" * len(b))
  _refuse(tmp_path / "a.mp4", "decoded")
  giant = np.zeros((32, base.MAX_SIDE + 16, 3), np.uint8)
  videos.write(tmp_path / "a.avi", [giant], "mjpeg", "yuvj420p")
  _refuse(tmp_path / "a.avi", str(base.MAX_SIDE))


def test_file_that_goes_away_is_told_frame_by_frame(tmp_path, clip):
  path = tmp_path / "a.mp4"
  shutil.copy(clip, path)
  stream = _open(path)
  path.unlink()
  samples = list(stream.read(30))
  assert [s.t for s in samples] == list(range(30, N))
  assert all("No such file" in s.problem for s in samples)


def test_identity_is_of_the_content(tmp_path, clip, monkeypatch):
  copy = tmp_path / "b.mp4"
  content = bytearray(clip.read_bytes())

  def identity(when=None):
    copy.write_bytes(content)
    if when:
      os.utime(copy, (when, when))
    return _open(copy).spec.identity

  first = identity()
  assert first == json.loads(json.dumps(first)) == _open(clip).spec.identity
  assert first["kind"] == "video" and first["num_frames"] == N
  content[-1] ^= 1  # in the name of the program that wrote it
  changed = identity()
  assert changed != first and changed["num_frames"] == N
  # A large file is told by its ends, its length and when it was written.
  monkeypatch.setattr(video, "_MAX_BYTES_HASHED", 0)
  monkeypatch.setattr(video, "_END_BYTES_HASHED", 64)
  seen = {identity()["content"], identity(when=1)["content"]}
  content[-1] ^= 1
  seen.add(identity(when=1)["content"])
  assert len(seen) == 3


def _index(pts, is_key, hole=0):
  pts = np.array(pts, np.int64)
  hole, is_shown = np.zeros_like(pts) + hole, np.ones(len(pts), bool)
  packets = video_file.Packets(pts, np.array(is_key), is_shown, hole)
  head = video_file.Head("mpegts", videos.BASE, 25.0)
  return video_file.make_index(head, packets)


def test_two_packets_a_frame_are_not_taken_for_lost_frames():
  index = _index(range(0, 800, 20), [t % 12 == 0 for t in range(40)])
  fields = [0, 40, 80, 120]
  found, num_frames = video_file.compare(index, fields, is_whole=True)
  assert not found.is_timed and num_frames is None
  found, num_frames = video_file.compare(index, fields, is_whole=False)
  assert found.is_timed and num_frames == 40


def test_missing_packets_are_counted_where_bytes_are_missing_too():
  pts = [40 * t for t in range(40) if not 20 <= t < 27]
  keys = [stamp == 0 for stamp in pts]
  index = _index(pts, keys, [0] * 20 + [5000] + [0] * 12)
  assert index.pts.tolist() == [40 * t for t in range(40)]
  assert np.flatnonzero(index.is_hole).tolist() == list(range(20, 27))
  assert len(_index(pts, keys).pts) == 33


def test_broken_files_are_refused_or_played(tmp_path):
  """In another process, so that a crash of the decoder is seen."""
  for name, codec, options in [
    *[(f"a.{e}", "libx264", GOP) for e in ("mp4", "mkv", "ts", "flv")],
    ("b.mov", "libx265", X265),
    ("c.webm", "libvpx-vp9", VPX),
    ("d.mp4", "libsvtav1", {"preset": "12"}),
    *[("e.avi", "mpeg4", GOP), ("f.mkv", "ffv1", GOP)],
  ]:
    _write(tmp_path / name, codec, options=options, num=20)
  count = os.environ.get("OJD_FUZZ_COUNT", "40")
  command = [sys.executable, "-m", "tests.reference.damage", tmp_path, count]
  done = subprocess.run(command, capture_output=True, timeout=600)
  tried = done.stdout.decode().splitlines()[-2:]
  assert done.returncode == 0, (tried, done.stderr.decode()[-2000:])
  for outcome in (b"  whole", b"  broken", b"  refused"):
    assert outcome in done.stdout

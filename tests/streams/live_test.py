"""Live streams from real servers on this machine, which fail in every way."""

import contextlib
import fractions
import functools
import http.server
import io
import itertools
import json
import socket
import threading
import time
import types

import av
import numpy as np
import pytest

from ojd.streams import base, live, prefetch
from tests.reference import pictures
from tests.reference.refusals import refused

FAST = live.Limits(
  open=1.0, stall=0.5, give_up=2.0, first_pause=0.05, longest_pause=0.2
)
HEIGHT, WIDTH = 48, 64


def _video(
  num_frames, form="mpegts", codec="mpeg2video", size=(HEIGHT, WIDTH), value=10
):
  """A video whose frame i is grey of value 10 + i, as bytes."""
  target = io.BytesIO()
  with av.open(target, "w", format=form) as container:
    stream = container.add_stream(codec, rate=25)
    stream.height, stream.width = size
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    stream.time_base = fractions.Fraction(1, 25)
    for i in range(num_frames):
      grey = pictures.flat(value + i, *size)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
    container.mux(stream.encode(None))
  return target.getvalue()


@contextlib.contextmanager
def _tcp(serve):
  """A server that calls `serve(connection, number, over)` for every caller."""
  listener = socket.create_server(("127.0.0.1", 0))
  is_over = threading.Event()

  def accept():
    with contextlib.suppress(OSError):
      for number in itertools.count():
        place = listener.accept()[0], number
        threading.Thread(target=work, args=place, daemon=True).start()

  def work(connection, number):
    with connection, contextlib.suppress(OSError):
      serve(connection, number, is_over)

  thread = threading.Thread(target=accept, daemon=True)
  thread.start()
  try:
    yield f"127.0.0.1:{listener.getsockname()[1]}"
  finally:
    is_over.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def _response(kind, content):
  head = f"HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\n"
  head += f"Content-Length: {len(content)}\r\n\r\n"
  return head.encode() + content


def _serve(response):
  """To whoever has asked."""

  def serve(connection, number, over):
    connection.recv(4096)
    connection.sendall(response)

  return _tcp(serve)


def _send_and_wait(content):
  """Sends to the first caller, and stays there."""

  def serve(connection, number, over):
    if number == 0:
      connection.sendall(content)
    over.wait()

  return _tcp(serve)


def _part(size, value):
  """One picture of a camera that sends Motion JPEG."""
  jpeg = _video(1, "image2pipe", "mjpeg", size, value)
  head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}"
  return head.encode() + b"\r\n\r\n" + jpeg + b"\r\n"


def _open(uri, limits=FAST, height=None, width=None):
  return live.open_stream(base.parse_address(uri), height, width, limits)


def _grey(sample):
  return round(float(sample.frame.mean()))


def test_all_addresses_are_known():
  for uri in (
    *("rtsp://host/x?y=1&z", "http://host/v.mp4?token=a=b", "https://host"),
    *("rtmp://host/live", "tcp://host:1", "udp://@:5000", "rtsps://host"),
  ):
    address = base.parse_address(uri)
    assert base.SCHEMES[address.scheme] == "ojd.streams.live"
    assert live.of_address(address).name == uri
  assert base.parse_address("camera:0?fps=30").options == {"fps": "30"}


def test_file_of_a_web_server_plays_to_its_end(tmp_path):
  """Of Python's own server."""
  (tmp_path / "v.mp4").write_bytes(_video(12, "mp4", "libx264"))

  kind = http.server.SimpleHTTPRequestHandler
  handler = functools.partial(kind, directory=str(tmp_path))
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
  threading.Thread(target=server.serve_forever).start()
  with server, contextlib.ExitStack() as stack:
    stack.callback(server.shutdown)
    uri = f"http://127.0.0.1:{server.server_address[1]}/v.mp4"
    stream = _open(uri, FAST._replace(depth=50))
    assert stream.spec.is_live and stream.spec.num_frames is None
    assert stream.spec.fps == 25 and stream.spec.source_size == (48, 64)
    begin = time.monotonic()
    samples = list(stream.read(5))
  # Twelve frames at 25 a second: a file is not raced through.
  assert time.monotonic() - begin > 0.3
  assert [s.t for s in samples] == list(range(5, 17))
  # One level apart, as the codec keeps them.
  np.testing.assert_allclose([*map(_grey, samples)], range(10, 22), atol=2)
  steps = np.diff([s.seconds for s in samples])
  np.testing.assert_allclose(steps, 1 / 25, atol=1e-6)


def test_source_that_dies_is_opened_again_and_told_once():
  """Ten frames; then refused twice; then others, of another size."""
  first, second = _video(10), _video(8, size=(96, 64))

  def serve(connection, number, over):
    if number in (1, 2):
      return
    connection.sendall(first if number == 0 else second)
    if number > 0:
      over.wait()

  with _tcp(serve) as place:
    stream = _open(f"tcp://{place}", FAST._replace(depth=50))
    samples = []
    for sample in stream.read():
      samples.append(sample)
      if any(s.frame is None for s in samples) and len(samples) > 14:
        break
    stream.close()
  (lost,) = [s for s in samples if s.frame is None]
  assert "it ended" in lost.problem and "opening it again" in lost.problem
  assert [s.t for s in samples] == list(range(len(samples)))
  samples.remove(lost)
  assert all(s.frame.shape == (48, 64, 3) for s in samples)
  stamps = [s.seconds for s in samples]
  assert stamps == sorted(stamps) and stream.num_reconnects == 1


def test_pauses_double_up_to_the_longest():
  waited = []
  limits = live.Limits(give_up=8.0, first_pause=1.0, longest_pause=4.0)
  source = live.of_address(base.parse_address("tcp://127.0.0.1:1"))
  feed = live._Feed(source, None, limits, clock=lambda: sum(waited))
  is_set = lambda: False
  feed._stopped = types.SimpleNamespace(wait=waited.append, is_set=is_set)
  assert feed._reconnect() is None
  assert waited == [1.0, 2.0, 4.0, 4.0]
  assert "giving up" in feed.take()


def test_slow_consumer_gets_what_is_new():
  """A camera of 100 JPEGs a second, resized; a consumer of ten."""
  parts = [_part((60, 80), 10 + i) for i in range(60)]

  def serve(connection, number, over):
    connection.recv(4096)
    head = "HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace"
    connection.sendall(f"{head}; boundary=b\r\n\r\n".encode())
    for part in parts:
      time.sleep(0.01)
      connection.sendall(part)
    over.wait()

  with _tcp(serve) as place:
    stream = _open(f"http://{place}/cam", FAST, HEIGHT, WIDTH)
    assert stream.spec.source_size == (60, 80)
    greys = []
    for sample in stream.read():
      assert sample.frame.shape == (HEIGHT, WIDTH, 3)
      greys.append(_grey(sample))
      if greys[-1] > 60:
        break
      time.sleep(0.1)
    stream.close()
  assert greys == sorted(greys)
  assert len(greys) < 20 and stream.num_dropped > 25


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n"


@pytest.mark.parametrize(
  "server",
  [
    _send_and_wait(b""),
    _serve(b"HTTP/1.0 200 OK\r\n\r\n" + bytes(range(256)) * 400),
    _serve(b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"),
    _serve(_response("application/vnd.apple.mpegurl", PLAYLIST)),
  ],
  ids=["silence", "garbage", "redirect", "playlist"],
)
def test_what_gives_no_frame_is_refused_in_time(server):
  with server as place:
    start = time.monotonic()
    with refused("--stream=http://127"):
      _open(f"http://{place}/v.m3u8")
    assert time.monotonic() - start < 6


def test_silent_source_ends_in_time():
  limits = FAST._replace(depth=50, open=0.3, give_up=1.0)
  with _send_and_wait(_video(10)) as place:
    start = time.monotonic()
    samples = list(_open(f"tcp://{place}", limits).read())
    assert time.monotonic() - start < 15
  problems = [s.problem for s in samples if s.frame is None]
  assert len(problems) <= 2 and "giving up" in problems[-1]
  assert len(samples) - len(problems) >= 5


def test_reader_gives_way_when_it_is_closed():
  with _send_and_wait(_video(40)) as place:
    stream = _open(f"tcp://{place}", FAST._replace(stall=60.0, open=5.0))
    reader = prefetch.Prefetcher(stream.read(), 1, interrupt=stream.close)
    assert next(iter(reader)).frame is not None
    start = time.monotonic()
    reader.close()
    assert time.monotonic() - start < 2


def test_password_is_nowhere():
  with refused("127.0.0.1") as error:
    _open("rtsp://me:secret@127.0.0.1:1/x", FAST)
  assert "secret" not in str(error.value)
  with _serve(_response("video/mp2t", _video(40))) as place:
    stream = base.open_stream(f"http://me:secret@{place}/v.ts")
    assert "secret" not in json.dumps(stream.spec.identity)
    stream.close()
  text = "x --stream=rtsp://{}@host/a?b=c@d --folder:a@b"
  shown = base.without_password(text.format("me:se:cret"))
  assert shown == text.format("***")


def test_camera_that_is_not_there_is_refused():
  with refused("there is no camera /dev/video77"):
    base.open_stream("camera:77")
  with refused("has no option"):
    base.open_stream("camera:0?colour=red")

"""The server of the live view on real sockets: routes, guards, bad guests."""

import contextlib
import http.client
import io
import json
import random
import socket
import statistics
import threading
import time

import numpy as np
import pytest
from PIL import Image

from ojd.errors import UserError
from ojd.report import pages
from ojd.serve import painter as painter_lib
from ojd.serve.server import Limits, LiveView
from tests.reference import live_run
from tests.waiting import until

PATHS = (
  *("/", "/live.css", "/live.js", "/overlay.mjpg", "/frame.jpg"),
  *("/events", "/metrics", "/healthz"),
)
STREAMS = ("/overlay.mjpg", "/events")
DEFAULT = Limits()
QUICK = Limits(
  num_viewers=3, num_connections=8, head_seconds=0.5, send_seconds=0.5
)
TOKEN = "open-sesame"


@pytest.fixture(scope="module")
def shared():
  """A view for tests that leave it as it is."""
  with _view() as view:
    live_run.step(view.display, 0)
    yield view


@pytest.fixture
def view():
  with _view() as view:
    yield view


@contextlib.contextmanager
def _view(address="127.0.0.1:0", token="", limits=DEFAULT):
  view = LiveView(address, token, limits)
  with contextlib.closing(view):
    live_run.begin(view.display)
    yield view


def _port(view):
  return int(view.url.rstrip("/").rpartition(":")[2])


def _request(
  view, path="/healthz", method="GET", body=None, at="127.0.0.1", **headers
):
  connection = http.client.HTTPConnection(at, _port(view), timeout=5)
  with contextlib.closing(connection):
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    has_body = path.split("?")[0] not in STREAMS or answer.status != 200
    return answer, answer.read() if has_body else b""


def _connect(view):
  return socket.create_connection(("127.0.0.1", _port(view)), timeout=5)


def _raw(view, request: bytes) -> bytes:
  """All that comes back; what the server resets counts as the end."""
  answer = b""
  with _connect(view) as connection, contextlib.suppress(ConnectionError):
    connection.sendall(request)
    connection.shutdown(socket.SHUT_WR)
    while chunk := connection.recv(65536):
      answer += chunk
  return answer


def _open_stream(view, path):
  """A viewer that has read the head of its answer; a file to go on with."""
  with _connect(view) as connection:
    head = f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"  # no chunks
    connection.sendall(head.encode())
    file = connection.makefile("rb")  # which keeps it open
  status = file.readline()
  while file.readline().strip():
    pass
  return status, file


def _news(file):
  """The next event."""
  while not (row := file.readline()).startswith(b"data: "):
    assert row, "the stream ended"
  return json.loads(row[6:])


_BOUNDARY = b"--frame\r\n"


def _picture(file):
  """The next part, boundaries and lengths checked."""
  assert file.readline() == _BOUNDARY
  head = http.client.parse_headers(file)
  assert head["Content-Type"] == "image/jpeg"
  jpeg = file.read(int(head["Content-Length"]))
  assert file.readline() == b"\r\n"
  return np.asarray(Image.open(io.BytesIO(jpeg)))


def _other_picture(file, seen):
  """The next that is not as before: repeats break a silence of a second."""
  seen.append(_picture(file))
  while len(seen) > 1 and np.array_equal(seen[-1], seen[-2]):
    seen.append(_picture(file))
  return seen[-1]


def test_every_route_answers_get_and_head(shared):
  kinds, bodies = {}, {}
  for path in PATHS:
    answer, bodies[path] = _request(shared, path)
    head, nothing = _request(shared, path, "HEAD")
    assert answer.status == head.status == 200 and nothing == b""
    kinds[path] = answer.headers["Content-Type"]
    assert head.headers["Content-Type"] == kinds[path]
    assert head.headers["Content-Length"] == answer.headers["Content-Length"]
    if path not in STREAMS:
      assert int(answer.headers["Content-Length"]) == len(bodies[path]) > 0
    for name in ("Content-Security-Policy", "X-Content-Type-Options"):
      assert answer.headers[name]
    assert answer.headers["Cache-Control"] == "no-store"
  assert kinds == {
    "/": "text/html; charset=utf-8",
    "/live.css": "text/css; charset=utf-8",
    "/live.js": "text/javascript; charset=utf-8",
    "/overlay.mjpg": "multipart/x-mixed-replace; boundary=frame",
    "/frame.jpg": "image/jpeg",
    "/events": "text/event-stream; charset=utf-8",
    "/metrics": "text/plain; version=0.0.4; charset=utf-8",
    "/healthz": "text/plain; charset=utf-8",
  }
  assert bodies["/live.css"].startswith(pages.asset("report.css").encode())
  assert b"ojd_updates_total 2.0\n" in bodies["/metrics"]
  for path in PATHS[:3]:  # the page asks nobody else
    assert b"http://" not in bodies[path] and b"https://" not in bodies[path]


@pytest.mark.parametrize(
  "path",
  [
    *("/../etc/passwd", "/..%2f..%2fetc/passwd", "/assets/live.js"),
    *("/live_view.py", "//etc/passwd", "/%00", "/frame.jpg/", "/favicon.ico"),
    *("/\\..\\x", "/overlay.mjpg%00.html", "/./healthz"),
  ],
)
def test_there_is_nothing_beside_the_routes(shared, path):
  answer, body = _request(shared, path)
  assert answer.status == 404 and body == b"there is no such page\n"


@pytest.mark.parametrize("path", ["/", "/nothing"])
def test_nothing_can_be_changed(shared, path):
  for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"):
    # More than the server reads: the answer arrives nevertheless.
    answer, _ = _request(shared, path, method, body=b"x" * 30_000)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


def test_no_body_is_read(shared):
  start = time.monotonic()
  for path in ("/", "/events", "/nothing"):
    for head in (b"Content-Length: 9999999", b"Transfer-Encoding: chunked"):
      lines = (f"GET {path} HTTP/1.1".encode(), b"Host: localhost", head)
      answer = _raw(shared, b"\r\n".join(lines) + b"\r\n\r\n1\r\nx")
      assert answer.startswith(b"HTTP/1.1 413"), answer
  assert time.monotonic() - start < 6 * 0.6  # a moment for each at most


@pytest.mark.parametrize(
  "host,is_let_in",
  [
    *(("localhost", True), ("LOCALHOST:1", True), ("127.0.0.1:99", True)),
    *(("[::1]", True), ("[::1]:8080", True), ("127.0.0.2", True)),
    *(("evil.example", False), ("evil.example:8080", False), ("", False)),
    *(("localhost.evil.example", False), ("127.0.0.1.evil.example", False)),
    *(("192.168.0.1", False), ("localhost:8080@evil", False)),
    *(("[::1", False), ("localhost:port", False), ("0.0.0.0", False)),
  ],
)
def test_other_names_for_this_machine_are_refused(shared, host, is_let_in):
  answer, body = _request(shared, "/metrics", Host=host)
  assert answer.status == (200 if is_let_in else 403)
  assert is_let_in or b"ojd_" not in body


def test_host_must_be_there_once(shared):
  none = _raw(shared, b"GET /metrics HTTP/1.0\r\n\r\n")
  two = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
  absolute = b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
  assert none.startswith(b"HTTP/1.1 403")
  assert _raw(shared, two).startswith(b"HTTP/1.1 400")
  assert _raw(shared, absolute).startswith(b"HTTP/1.1 400")


def test_token_opens_every_route_and_nothing_else_does():
  with _view(token=TOKEN) as view:
    live_run.step(view.display, 0)
    for path in (*PATHS, "/nothing"):
      for headers in (
        *({}, {"Authorization": "Bearer wrong"}),
        *({"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer"}),
        *({"Cookie": f"ojd_view_{_port(view)}={TOKEN}"}, {"Cookie": ";=;"}),
        {"Authorization": f"Bearer {TOKEN}x"},
      ):
        answer, body = _request(view, path, **headers)
        assert answer.status == 401, (path, headers)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert TOKEN.encode() not in body
      answer, _ = _request(view, path, Authorization=f"Bearer {TOKEN}")
      assert answer.status == (404 if path == "/nothing" else 200)
    for wrong in ("wrong", "", "%ff%fe"):
      assert _request(view, f"/?token={wrong}")[0].status == 401


def test_token_in_the_address_becomes_a_cookie():
  with _view(token=TOKEN) as view:
    answer, body = _request(view, f"/metrics?token={TOKEN}")
    assert answer.status == 303 and answer.headers["Location"] == "/metrics"
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in str(answer.headers) + body.decode()
    pair = cookie.split(";")[0]
    for header in (pair, f'a="b; c; {pair}; d[]=\\'):
      assert _request(view, "/metrics", Cookie=header)[0].status == 200
    # A token that is given is judged, also beside a good cookie.
    assert _request(view, "/?token=x", Cookie=pair)[0].status == 401
    answer, _ = _request(view, f"//evil.example/?token={TOKEN}")
    assert answer.headers["Location"] == "/"
  with _view(token=TOKEN + "2") as other:
    name, _, value = pair.partition("=")
    forged = f"ojd_view_{_port(other)}={value}"
    assert _request(other, "/", Cookie=forged)[0].status == 401


def test_token_guards_a_view_for_other_machines():
  with _view("0.0.0.0:0", TOKEN) as view:
    assert socket.gethostname() in view.url and TOKEN not in view.url
    # Whoever has the token may call the machine as he likes.
    headers = {"Host": "studio.example", "Authorization": f"Bearer {TOKEN}"}
    assert _request(view, "/healthz", **headers)[0].status == 200
    assert _request(view, "/healthz", Host="studio.example")[0].status == 401


@pytest.mark.parametrize(
  "words,token,addresses",
  [
    (
      *("--serve_token=SECRET", ""),
      ("0.0.0.0:0", "[::]:0", "192.0.2.7:0", "[::ffff:127.0.0.1]:0"),
    ),
    ("no such address", TOKEN, ("192.0.2.7:0",)),
    ("HOST:PORT", "", ("8080", "127.0.0.1", "::1:80", "http://127.0.0.1:80")),
    ("HOST:PORT", "", ("127.0.0.1:70000", "127.0.0.1:-1")),
    ("no host", "", ("no such host:80", "x" * 70 + ".invalid:80")),
    ("--serve_token", "two words", ("127.0.0.1:0",)),
    ("--serve_token", "s" * 257, ("127.0.0.1:0",)),
    ("ASCII", "schl\N{LATIN SMALL LETTER U WITH DIAERESIS}", ("127.0.0.1:0",)),
  ],
)
def test_bad_requests_are_one_line_without_the_secret(words, token, addresses):
  for address in addresses:
    with pytest.raises(UserError) as caught:
      LiveView(address, token)
    message = str(caught.value)
    assert words in message and "\n" not in message
    assert not token or token not in message


def test_port_in_use_is_a_bad_request(view):
  before = set(threading.enumerate())
  with pytest.raises(UserError, match="in use"):
    LiveView(f"127.0.0.1:{_port(view)}")
  assert set(threading.enumerate()) <= before


def test_view_on_other_loopback_addresses():
  with _view("localhost:0") as view:
    assert _request(view)[0].status == 200
  try:
    socket.create_server(("::1", 0), family=socket.AF_INET6).close()
  except OSError:
    pytest.skip("this machine has no ::1")
  with _view("[::1]:0") as view:
    assert view.url.startswith("http://[::1]:")
    assert _request(view, at="::1")[0].status == 200


def test_newest_frame_is_what_is_shown(view):
  answer, body = _request(view, "/frame.jpg")
  assert answer.status == 503 and body == b"no frame yet\n"
  assert answer.headers["Retry-After"]
  for t in (10, 200):
    live_run.step(view.display, t)
    _, jpeg = _request(view, "/frame.jpg")
    picture = np.asarray(Image.open(io.BytesIO(jpeg)))
    np.testing.assert_array_equal(picture, _seen(t))


def _seen(t):
  """The picture of a frame."""
  jpeg = painter_lib.paint(live_run.record(t), live_run.NAMES)
  return np.asarray(Image.open(io.BytesIO(jpeg)))


def test_overlay_goes_with_the_run_up_to_its_last_frame(view):
  status, file = _open_stream(view, "/overlay.mjpg")
  with file:
    assert status.startswith(b"HTTP/1.1 200")
    seen, began = [], time.monotonic()
    for t in (0, 90, 180):
      live_run.step(view.display, t)
      np.testing.assert_array_equal(_other_picture(file, seen), _seen(t))
    view.display.put(live_run.record(250))
    closer = threading.Thread(target=view.close)
    closer.start()
    np.testing.assert_array_equal(_other_picture(file, seen), _seen(250))
    rest = io.BytesIO(file.read())
    while rest.tell() + len(_BOUNDARY) < len(rest.getvalue()):
      seen.append(_picture(rest))
      np.testing.assert_array_equal(seen[-1], _seen(250))
    assert rest.read() == _BOUNDARY
    assert len(seen) - 4 <= time.monotonic() - began
    closer.join()


def test_pictures_come_fifteen_times_a_second_at_most(view):
  over = threading.Event()

  def work():
    t = 0
    while not over.wait(0.002):
      view.display.put(live_run.record(t := t + 1))

  thread = threading.Thread(target=work)
  thread.start()
  with _open_stream(view, "/overlay.mjpg")[1] as file:
    _picture(file)
    start = time.monotonic()
    for _ in range(12):
      _picture(file)
    assert time.monotonic() - start > 0.9 * 12 / 15
  over.set()
  thread.join()


def test_run_that_fails_is_reported(view):
  with _open_stream(view, "/events")[1] as file:
    _news(file)
    view.close()
    assert _news(file)["state"] == "failed"


def test_too_many_viewers_are_sent_away_and_let_in_later():
  with _view(limits=QUICK) as view:
    live_run.step(view.display, 0)
    for path in STREAMS:
      opened = [_open_stream(view, path) for _ in range(QUICK.num_viewers)]
      assert all(status.startswith(b"HTTP/1.1 200") for status, _ in opened)
      status, file = _open_stream(view, path)
      assert status.startswith(b"HTTP/1.1 503")
      assert file.read() == b"too many viewers\n"
      file.close()
      assert _request(view, "/healthz")[0].status == 200
      for _, file in opened:
        file.close()

      def is_let_in(path=path):
        status, file = _open_stream(view, path)
        file.close()
        return status.startswith(b"HTTP/1.1 200")

      until(is_let_in)


def test_connections_beyond_the_limit_are_sent_away():
  # Long enough to fill all places with connections that say nothing.
  limits = QUICK._replace(head_seconds=2.0)
  with _view(limits=limits) as view, contextlib.ExitStack() as stack:
    for _ in range(limits.num_connections):
      stack.enter_context(_connect(view))
    until(lambda: _raw(view, b"").startswith(b"HTTP/1.1 503"), 1.5)
    until(lambda: _request(view, "/healthz")[0].status == 200)


def test_request_that_trickles_in_is_not_waited_for():
  with _view(limits=QUICK) as view, _connect(view) as slow:
    start = time.monotonic()
    with contextlib.suppress(ConnectionError):
      for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20:
        slow.sendall(bytes([byte]))
        time.sleep(0.05)
    assert time.monotonic() - start < 2.5  # half a second, and a linger
    with contextlib.suppress(ConnectionError):
      assert slow.recv(100) == b""


@pytest.mark.parametrize(
  "request_,status",
  [
    (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"400"),
    (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", b"400"),
    (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"400"),
    *(
      (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", b"505"),
      (b"GET / \r\n\r\n", b"400"),
    ),
    *((b"GET / FTP/1.1\r\n\r\n", b"400"), (b"GET\r\n\r\n", b"400")),
    (b"<script>alert(1)</script>\r\n\r\n", b"400"),
    (b"GET /?a[=%zz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
    (
      b"GET /?" + b"a=1&" * 99 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
      b"400",
    ),
    (b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
  ],
)
def test_malformed_requests_have_their_answer(shared, request_, status):
  answer = _raw(shared, request_)
  assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
  assert b"script>" not in answer or status == b"200"


def test_noise_is_survived_in_silence(capfd, caplog):
  rng = random.Random(0)
  words = [
    *(b"GET ", b"HEAD ", b"/", b" HTTP/1.1", b"\r\n", b"\n", b":", b"["),
    *(b"?token=", b"%", b"\x00", b"Content-Length: -1", b"Host: localhost"),
  ]
  with _view(limits=QUICK) as view:
    for i in range(300):
      if i % 2:
        noise = rng.randbytes(rng.randrange(200))
      else:
        noise = b"".join(rng.choices(words, k=rng.randrange(14)))
      _raw(view, noise + rng.choice([b"", b"\r\n\r\n"]))
    assert _request(view, "/healthz") and _request(view, "/")[0].status == 200
  captured = capfd.readouterr()
  assert captured.err == captured.out == "" and not caplog.records


def test_viewers_that_never_read_cost_the_run_nothing():
  with _view(limits=QUICK._replace(send_seconds=5)) as view:
    opened = [_open_stream(view, path)[1] for path in 3 * STREAMS]
    records = [live_run.record(t, 240, 320) for t in range(10)]
    spent = []
    for t in range(1000):
      start = time.perf_counter()
      view.display.line(live_run.line(t))
      view.display.put(records[t % 10])
      view.display.progress(live_run.progress(t + 1))
      spent.append(time.perf_counter() - start)
      time.sleep(0.001)
    # Alone it takes some microseconds; a thread may hold the interpreter for
    # a few milliseconds, and nothing waits for a network.
    assert statistics.median(spent) < 1e-3
    assert np.quantile(spent, 0.99) < 0.02 and max(spent) < 0.2
    start = time.monotonic()
    view.close()
    assert time.monotonic() - start < 2.0
    for file in opened:
      file.close()


def test_viewer_that_never_reads_is_cut_off():
  with _view(limits=QUICK) as view:
    _, file = _open_stream(view, "/overlay.mjpg")
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    large = live_run.record(0, 480, 640)._replace(frame=noise)
    slots = view._site.picture_slots

    def is_freed():
      view.display.put(large)
      return slots.num_free == QUICK.num_viewers

    assert slots.num_free == QUICK.num_viewers - 1
    until(is_freed, 15)
    file.close()


def test_closing_ends_threads_and_port_with_viewers_attached():
  before = set(threading.enumerate())
  with _view() as view:
    live_run.step(view.display, 0)
    opened = [_open_stream(view, path)[1] for path in 2 * STREAMS]
    opened.append(_connect(view))
    port = _port(view)
    start = time.monotonic()
    view.close()
    assert time.monotonic() - start < 2.0
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
      socket.create_connection(("127.0.0.1", port), timeout=1)
    for file in opened:
      file.close()

"""Server and device over real sockets, in one process, on loopback."""

import contextlib
import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import threading

import msgspec
import numpy as np
import pytest
from websockets import exceptions
from websockets.sync import client as websockets_client
from websockets.sync import server as websockets_server

from ojd import labels as labels_lib
from ojd.edge import access
from ojd.edge import student as student_lib
from ojd.edge.access import Timing
from ojd.edge.device import Device
from ojd.edge.player import Pace
from ojd.edge.store import Store
from ojd.models import export
from ojd.network import messages
from ojd.network import weights as weights_lib
from ojd.network.weights import Weights, layout_of
from ojd.run import build
from ojd.run import config as config_lib
from ojd.tasks.segmentation import classify
from ojd.types import Labels
from tests.reference import edge_proxy, edge_run, host_loop, hostile, small_run
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("small_students")


def _bits(named):
  return {name: np.asarray(array).tobytes() for name, array in named.items()}


def _url(port):
  return f"ws://127.0.0.1:{port}"


def _run(player):
  """Plays the whole stream once the server has answered; the summary."""
  player.client.start()
  until(lambda: player.client.is_connected or player.client.refusal)
  return player.run()


@contextlib.contextmanager
def _live(path, url, **options):
  """A device that plays by the clock until the block is over."""
  stop = threading.Event()
  player = edge_run.player(
    *(path, url),
    flags={"stream": "synthetic:sports?num_frames=5000"},
    pace=Pace(is_real_time=True),
    should_stop=stop.is_set,
    **options,
  )
  thread = threading.Thread(target=player.run)
  thread.start()
  try:
    yield player
  finally:
    stop.set()
    thread.join(20)


def _by_itself(config):
  """The student of a run whose server and device are one, and its keys."""
  config = config_lib.settled(config)
  groups = labels_lib.parse_groups("person", ("background", "person"))
  student = build.make_student(config, groups)
  stream = build.open_stream(config)
  system = build.make_system(config, student, stream.spec)
  teacher = edge_run.make_teacher()
  frames = np.stack([sample.frame for sample in stream.read()])
  maps = [labels_lib.from_class_map(teacher(x), groups) for x in frames]
  labels = Labels(*map(np.stack, zip(*maps, strict=True)))
  found = host_loop.play(system, frames, labels, seed=config.seed)
  return student_lib.flatten(found.state.params), found.keys


@pytest.mark.parametrize("system", ["jit", "shadowtutor"])
def test_device_that_waits_learns_what_one_machine_would(system, tmp_path):
  config = dataclasses.replace(edge_run.CONFIG, system=system)
  expected, keys = _by_itself(config)
  with edge_run.place(config=config) as there:
    player = edge_run.player(tmp_path / "run", there.url)
    summary = _run(player)
  lines = small_run.lines(tmp_path / "run")
  assert [line["t"] for line in lines] == list(range(60))
  assert [line["t"] for line in lines if line["is_key"]] == keys
  assert _bits(player.client.device.held.params) == _bits(expected)
  assert summary["num_updates"] == len(keys) == summary["num_key_frames"]
  assert summary["num_whole_updates"] == summary["num_reconnects"] == 0
  assert summary["finished"] and summary["miou"]["mean"] is not None
  assert summary["bytes_up"] > len(keys) * 32 * 40 * 3
  assert summary["bytes_down"] == there.server.traffic.down
  # The weights of a key frame answer from the next frame on.
  stale = [t - max(k for k in keys if k < t) for t in range(keys[0] + 1, 60)]
  assert [line["staleness"] for line in lines[keys[0] + 1 :]] == stale
  assert summary["staleness"]["max"] == max(stale)


def test_nobody_waits_for_a_server_that_is_not_there(tmp_path):
  with socket.create_server(("127.0.0.1", 0)) as taken:
    url, notes = _url(taken.getsockname()[1]), []
  summary = edge_run.player(tmp_path / "run", url, notes=notes).run()
  assert summary["finished"] and summary["num_frames"] == 60
  assert summary["num_updates"] == summary["version"] == 0
  assert summary["seconds"]["total"] < 10
  assert "nobody listens there" in notes[0]


def test_cut_update_and_restarted_server(tmp_path):
  store = Store(tmp_path / "store", 9)
  first, notes = edge_run.Place(store=store), []
  proxy = edge_proxy.Proxy(first.port)
  with _live(tmp_path / "run", _url(proxy.port), notes=notes) as player:
    device, totals = player.client.device, player.totals
    until(lambda: device.counts.num_updates >= 3)
    # Less than an update: it breaks off in its middle.
    proxy.bytes_left = 300
    until(lambda: device.counts.num_welcomes >= 2)
    num = device.counts.num_updates
    until(lambda: device.counts.num_updates >= num + 2)
    assert device.counts.num_whole == 0
    session = device.session
    proxy.cut()
    first.close()
    before, num_frames = device.held.version, totals.num_frames
    until(lambda: totals.num_frames >= num_frames + 20)
    assert device.held.version == before and not player.client.is_connected
    second = edge_run.Place(store=store)
    proxy.target = second.port
    until(lambda: device.held.version >= before + 2)
  assert device.session == session
  is_same = _bits(second.session().held.params) == _bits(device.held.params)
  assert is_same or second.session().is_in_flight
  second.close()
  proxy.close()
  # On the disk there may be what never reached the device.
  assert device.counts.num_whole <= 1
  assert player.client.counts.num_problems >= 2
  assert "connected to the server again" in notes


def test_silence_is_noticed_at_both_ends(tmp_path):
  timing = edge_run.QUICK
  with edge_run.place(timing=timing) as there:
    proxy = edge_proxy.Proxy(there.port)
    with _live(tmp_path / "run", _url(proxy.port), timing=timing) as player:
      until(lambda: player.client.device.counts.num_updates >= 1)
      proxy.is_stalled = True
      until(lambda: not player.client.is_connected)
      until(lambda: not any(here for _, here in there.registry.sessions()))
      proxy.is_stalled = False
      until(lambda: player.client.device.counts.num_welcomes >= 2)
    proxy.close()


def _connect(there, **options):
  return websockets_client.connect(
    there.url, proxy=None, compression=None, close_timeout=0.2, **options
  )


_TERMS = messages.Terms(32, 40, 25.0, "raw", "person")


def _hello():
  """Of a device that could be served."""
  config = dataclasses.replace(edge_run.CONFIG, workdir="x")
  groups = student_lib.groups_of("person")
  student = build.make_student(config, groups)
  named = student_lib.first_weights(student, config.seed)
  return Device(Weights(named, layout_of(named)), _TERMS).connected(0.0)


def _ending(connection):
  """The last Error that is said, and the code of the end."""
  error = None
  try:
    while True:
      message = messages.decode(connection.recv(timeout=10))
      if isinstance(message, messages.Error):
        error = message
  except exceptions.ConnectionClosed as end:
    return error, end.rcvd.code if end.rcvd else None


def test_enemies_of_many_kinds_end_and_the_server_goes_on():
  hello, rng = messages.encode(_hello()), np.random.default_rng(0)
  with edge_run.place() as there:
    with _connect(there) as large:
      large.send(hello)
      large.send(bytes(1 << 21))
      assert _ending(large)[1] == 1009  # too big
    dog = msgspec.structs.replace(
      _hello(), terms=_TERMS._replace(classes="dog")
    )
    for data, words, is_final in (
      ("dear diary, today", "no message of the protocol", False),
      (
        hostile.signed(hello[:4] + b"\3" + hello[5:]),
        "2 is spoken here and 3 there",
        True,
      ),
      (messages.encode(messages.Ack(1)), "before a Hello", False),
      (messages.encode(dog), "other classes", True),
    ):
      with _connect(there) as other:
        other.send(data)
        error, _ = _ending(other)
        assert words in error.text and error.is_final >= is_final
    for i in range(60):
      with _connect(there) as noisy:
        noisy.send(hello)
        data = bytearray(
          messages.encode(messages.Resync(0)) if i % 2 else hello
        )
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        noisy.send(rng.bytes(40) if i % 3 == 0 else bytes(data))
        assert _ending(noisy)[0] is not None
    with pytest.raises(exceptions.InvalidStatus, match="403"):
      _connect(there, origin="https://example.com")
    with socket.create_connection(("127.0.0.1", there.port)) as plain:
      plain.sendall(b"\x16\x03\x01" + bytes(300))
      plain.recv(1000)
    with _connect(there) as good:
      good.send(hello)
      welcome = messages.decode(good.recv(timeout=10))
      assert isinstance(welcome, messages.Welcome)
  assert all("\n" not in note for note in there.notes)


@contextlib.contextmanager
def _server(answer):
  """A server that is no more than what it does with a connection; its URL."""
  with websockets_server.serve(answer, "127.0.0.1", 0) as server:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield _url(server.socket.getsockname()[1])
    server.shutdown()
    thread.join(5)


def test_server_of_the_first_protocol_is_refused(tmp_path):
  """It answers a Hello of ours by an Error as version 1 has it."""

  def answer(connection):
    connection.recv()
    connection.send(messages.refusal(1, "a message of version 2"))

  with _server(answer) as url:
    summary = _run(edge_run.player(tmp_path / "run", url))
  assert "protocol 2 is spoken here and 1 there" in summary["refusal"]
  assert not summary["finished"] and "\n" not in summary["refusal"]


def test_last_word_is_read_though_a_reply_comes_too_late(tmp_path):
  """The server is gone before the device has answered the message before."""
  is_over, notes = threading.Event(), []

  def answer(connection):
    connection.recv()
    bits = weights_lib.trainable_bits(layout_of(held.params))
    terms = (b"1" * messages.SESSION_BYTES, 0, messages.Schedule(8), True, bits)
    connection.send(messages.encode(messages.Welcome(*terms)))
    connection.send(messages.encode(messages.Error("go away", is_final=True)))
    connection.close()
    is_over.set()

  with _server(answer) as url:
    player = edge_run.player(tmp_path / "run", url, notes=notes)
    device = player.client.device
    held, handle = device.held, device.handle

    def handle_late(message, now):
      is_over.wait(10)
      return handle(message, now)

    device.handle = handle_late
    player.client.start()
    until(lambda: player.client.refusal)
    player.client.close()
  assert player.client.refusal == "the server refuses: go away"
  assert device.counts.num_welcomes == 1 and not notes


def test_who_says_nothing_is_not_waited_for():
  timing = Timing(heartbeat=5.0, timeout=5.0, opening=0.3, closing=0.2)
  with edge_run.place(timing=timing) as there, _connect(there) as silent:
    assert _ending(silent) == (None, 1000)


def test_newer_client_takes_over(tmp_path):
  with edge_run.place() as there:
    with _live(tmp_path / "older", there.url) as older:
      until(lambda: older.client.device.counts.num_updates >= 1)
      newer = edge_run.player(tmp_path / "newer", there.url)
      newer.client.device.session = older.client.device.session
      newer.client.device.held = older.client.device.held
      newer.client.start()
      until(lambda: newer.client.is_connected)
      until((tmp_path / "older" / "summary.json").exists)  # it ends by itself
    # The older one's end is not that of the session.
    assert [is_connected for _, is_connected in there.registry.sessions()] == [
      True
    ]
    newer.client.close()
  summary = json.loads((tmp_path / "older" / "summary.json").read_text())
  assert not summary["finished"]
  assert "another client has taken up this session" in summary["refusal"]


def test_wrong_token_is_refused(tmp_path):
  who = access.server_access("127.0.0.1:0", "secret", "", "")
  with edge_run.place(who=who) as there:
    dial = access.client_dial(there.url, "wrong", "")
    summary = _run(edge_run.player(tmp_path / "run", there.url, dial=dial))
  assert "token (HTTP 401)" in summary["refusal"] and not summary["finished"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
  """A certificate of 127.0.0.1 by itself, and its key."""
  if shutil.which("openssl") is None:
    pytest.skip("no openssl to make a certificate with")
  folder = tmp_path_factory.mktemp("tls")
  command = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
    "-subj /CN=test -addext subjectAltName=IP:127.0.0.1 -days 2 "
    "-keyout key.pem -out cert.pem"
  )
  subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
  return str(folder / "cert.pem"), str(folder / "key.pem")


def test_tls(certificate, tmp_path):
  who = access.server_access("127.0.0.1:0", "secret", *certificate)
  with edge_run.place(who=who) as there:
    assert there.url.startswith("wss://")
    dial = access.client_dial(there.url, "secret", certificate[0])
    summary = _run(edge_run.player(tmp_path / "run", there.url, dial=dial))
    assert summary["num_updates"] > 3 and not summary["refusal"]
    # Nobody vouches for it elsewhere.
    dial = access.client_dial(there.url, "secret", "")
    summary = _run(edge_run.player(tmp_path / "other", there.url, dial=dial))
    assert "not who it says" in summary["refusal"]


_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from experiments import cli, edge_client
from ojd.models import student
from tests.reference import small_run
student.MODELS = small_run.MODELS
cli.run(edge_client.main)
"""


def test_device_runs_where_torch_is_not(tmp_path):
  flags = (
    "--stream=synthetic:sports?num_frames=60 --init=random --height=32 "
    "--width=40 --classes=person --seed=2 --realtime --wait"
  )
  with edge_run.place() as there:
    there = (f"--server={there.url}", f"--workdir={tmp_path}")
    command = [sys.executable, "-c", _WITHOUT_TORCH, *flags.split(), *there]
    subprocess.run(command, check=True)
  summary = json.loads((tmp_path / "summary.json").read_text())
  assert summary["finished"] and summary["num_updates"] > 2


@pytest.mark.parametrize("codec", ["h264", "jpeg"])
def test_samples_of_a_training_period_travel_together(codec, tmp_path):
  """Five samples a second go up, half the bits of values come down."""
  seen = []
  options = "sampling_rate=5:train_period=1:iterations=2:batch_size=2"
  config = edge_run.of_system(f"ams:{options}")
  with edge_run.place(config=config) as there:
    train = there.trainer.train
    there.trainer.train = lambda session, frames: (
      seen.append(frames.times) or train(session, frames)
    )
    pace = Pace(is_real_time=True)
    player = edge_run.player(tmp_path, there.url, pace=pace, codec=codec)
    summary, device = _run(player), player.client.device
    session = there.session()
  assert [len(times) for times in seen] == [6, 5]
  np.testing.assert_allclose(np.concatenate(seen), np.arange(11) / 5)
  assert summary["num_key_frames"] == 11
  assert 1 <= summary["num_updates"] <= 2
  assert device.plan.schedule.training_period == 1.0
  held, first = device.held.params, there.registry.offer.first.params
  moved = np.concatenate([x[x != first[n]] for n, x in held.items()])
  assert moved.size > 0
  np.testing.assert_array_equal(moved, moved.astype(np.float16))
  if session.held.version == device.held.version:
    assert _bits(session.held.params) == _bits(held)


def test_exported_program_answers_as_the_student_does(tmp_path):
  config = config_lib.settled(edge_run.CONFIG)
  student = build.make_student(config, student_lib.groups_of("person"))
  named = student_lib.first_weights(student, config.seed)
  path = tmp_path / "s.jax"
  answer = lambda p, frame: classify(student.apply(p, frame))
  export.save(path, answer, student_lib.unflatten(named), 32, 40)
  found = []
  for name, program in (("jax", ""), ("file", str(path))):
    with edge_run.place() as there:
      _run(edge_run.player(tmp_path / name, there.url, program=program))
    found.append(
      [line["eval_miou"] for line in small_run.lines(tmp_path / name)]
    )
  np.testing.assert_allclose(*found, atol=0.01)
  assert len(set(found[0])) > 20

"""An edge client over loopback.

device_up_vs_alone, device_throttled_vs_alone, device_killed_vs_alone
    a frame of a client with a server, with one behind a line of a megabit a
    second, and with one that is killed, over a frame without any (the first at
    most 1.05)

Server and client are pinned to a core each, where there are two. Since cores
share caches and memory, the first is compared with a client beside a core that
is as busy as the server's.
"""

import contextlib
import functools
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Case
from ojd.run import workdir

_SECONDS = 60.0  # for a server to start
_SLOW_BYTES = 125_000  # a second, of a throttled line: a megabit
_NUM_FRAMES = 1000
# What a server does most of its time, as far as a neighbour sees it.
_BUSY = """
import numpy as np
x = np.ones((600, 600), np.float32)
while True:
  x = np.tanh(x @ x)
"""


def beside(kind, at):
  """A frame of a device with a server of some kind, over one alone."""
  alone = "busy" if kind == "up" else "alone"
  pairs = [
    [_frame_ms(each, at.size) for each in (kind, alone)]
    for _ in range(max(1, at.repeats // 3))
  ]
  note = f"{_NUM_FRAMES} frames over loopback, {at.size_text}"
  return measure.of_pairs(f"device_{kind}_vs_alone", pairs, note)


def _frame_ms(kind, size):
  """Of a device's run, all that goes with a frame."""
  cores = range(os.cpu_count())
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
    url = "ws://127.0.0.1:9"  # nothing listens
    if kind == "busy":
      neighbour = _pinned([sys.executable, "-c", _BUSY], cores[-1])
      ends.callback(neighbour.wait)
      ends.callback(neighbour.kill)
    elif kind != "alone":
      server = _start(
        *("edge_server", cores[-1], subprocess.PIPE),
        "--listen=127.0.0.1:0",
        *("--teacher=mask_rcnn_tiny", "--classes=person;auto=car,bus,truck"),
        *(f"--height={size[0]}", f"--width={size[1]}"),
      )
      ends.callback(server.wait)
      ends.callback(server.kill)
      url = server.stdout.readline().split()[-1]
      ends.callback(server.stdout.close)
    if kind == "throttled":
      port = ends.enter_context(_slow_line(int(url.rpartition(":")[2])))
      url = f"ws://127.0.0.1:{port}"
    path = pathlib.Path(folder) / "run"
    device = _start(
      *("edge_client", cores[0], subprocess.DEVNULL),
      *(f"--server={url}", f"--workdir={path}"),
      f"--stream=synthetic:street?num_frames={_NUM_FRAMES}",
      *(f"--height={size[0]}", f"--width={size[1]}"),
      "--classes=person;auto=car,bus,truck",
    )
    if kind == "killed":
      _wait_for_frames(path, _NUM_FRAMES // 4, device)
      server.kill()
    if device.wait() != 0:
      raise measure.Unavailable(f"the device of {kind} failed")
    return 1e3 / json.loads((path / workdir.SUMMARY).read_text())["fps"]


def _start(name, core, stdout, *flags):
  command = [sys.executable, "-m", f"experiments.{name}", *flags]
  return _pinned(command, core, stdout)


def _pinned(command, core, stdout=subprocess.DEVNULL):
  process = subprocess.Popen(
    command, stdout=stdout, stderr=subprocess.DEVNULL, text=True
  )
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(process.pid, {core})
  return process


def _wait_for_frames(path, count, device):
  """Until a run has so many frames, or is over."""
  metrics, deadline = path / workdir.METRICS, time.monotonic() + _SECONDS
  while device.poll() is None and time.monotonic() < deadline:
    if metrics.exists() and metrics.read_bytes().count(b"\n") >= count:
      return
    time.sleep(0.05)


@contextlib.contextmanager
def _slow_line(target):
  """A port that carries a megabit a second to another one and back."""
  with socket.create_server(("127.0.0.1", 0)) as listening:
    thread = threading.Thread(
      target=_accept, args=(listening, target), daemon=True
    )
    thread.start()
    yield listening.getsockname()[1]


def _accept(listening, target):
  with contextlib.suppress(OSError):
    while True:
      near, _ = listening.accept()
      far = socket.create_connection(("127.0.0.1", target))
      for ends in ((near, far), (far, near)):
        threading.Thread(target=_carry, args=ends, daemon=True).start()


def _carry(source, target):
  with contextlib.suppress(OSError), source, target:
    while data := source.recv(4096):
      target.sendall(data)
      time.sleep(len(data) / _SLOW_BYTES)


CASES = [
  Case(functools.partial(beside, kind), measure.TINY)
  for kind in ("up", "throttled", "killed")
]

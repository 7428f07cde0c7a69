r"""Serves devices: a teacher and a system train their students.

    python -m experiments.edge_server --smoke
    python -m experiments.edge_server --listen=127.0.0.1:7777 \
        --teacher=mask_rcnn_tiny --system=shadowtutor

The first serves one device for half a minute. The second prints
`listening on ws://127.0.0.1:7777` when it is ready, then a line for every
device that connects or leaves and one every few seconds of work, until Ctrl-C.
A device runs `experiments.edge_client --server=ws://127.0.0.1:7777`.

An address that other machines can reach needs --tls_cert, --tls_key and a
token. With --workdir a server that is restarted, even killed, resumes with the
weights of each device; without it, devices send their weights.
"""

import pathlib
import subprocess
import sys
import time

from absl import flags

from experiments import cli, edge_flags, run_flags
from ojd.edge import access as access_lib
from ojd.edge import server as server_lib
from ojd.edge.registry import Capacity
from ojd.edge.session import Rules
from ojd.edge.store import Store
from ojd.run import compilation
from ojd.run import config as config_lib

flags.adopt_module_key_flags(run_flags)
flags.adopt_module_key_flags(edge_flags)
_LISTEN = flags.DEFINE_string(
  "listen", "127.0.0.1:7777", "HOST:PORT for devices; port 0 picks a free one"
)
_CERT = flags.DEFINE_string("tls_cert", "", "the file of a certificate, in PEM")
_KEY = flags.DEFINE_string(
  "tls_key", "", "the file of the certificate's key, in PEM"
)
_SESSIONS = flags.DEFINE_integer(
  "max_sessions",
  16,
  "the most devices that are connected or may reconnect",
  1,
)
_MESSAGE = flags.DEFINE_float(
  "max_message_mb", 16.0, "the most megabytes in a message of a device"
)
_RATE = flags.DEFINE_float(
  "max_key_rate",
  10.0,
  "the most key frames a second of a device; others are skipped",
)
_QUEUE = flags.DEFINE_integer(
  "max_queue",
  4,
  "the most messages of a device in the queue; beyond that the oldest is "
  "dropped",
  1,
)
_FORGET = flags.DEFINE_float(
  "forget_after",
  600.0,
  "seconds after which the state of a device that left is deleted",
)
_KEPT = flags.DEFINE_integer(
  "max_kept", 64, "the most devices whose weights are saved in the workdir", 1
)
_SMOKE = flags.DEFINE_bool("smoke", False, "serve one device for a few frames")

_USED = (
  *("teacher", "teacher_process", "teacher_timeout", "system", "workdir"),
  *("classes", "height", "width", "seed"),
  *("a_thresh", "delta_min", "delta_max", "u_max", "u_min"),
  *("update", "learning_rate", "precision"),
  *("model", "init"),
)
_SESSIONS_FOLDER = "sessions"
_POLL_SECONDS, _LOG_SECONDS = 0.2, 5.0
_SMOKE_DEFAULTS = {"system": "shadowtutor", "u_max": 2}


def main() -> int:
  """Serves devices until it is stopped."""
  edge_flags.refuse_others(_USED, "it is the device's, edge_client has it")
  defaults = {"system": "shadowtutor"}
  config = run_flags.run_config(_SMOKE_DEFAULTS if _SMOKE.value else defaults)
  # A server needs no workdir.
  config_lib.check(run_flags.with_workdir(config, config.workdir or "none"))
  edge_flags.check_positive(
    max_message_mb=_MESSAGE.value,
    max_key_rate=_RATE.value,
    forget_after=_FORGET.value,
  )
  address = "127.0.0.1:0" if _SMOKE.value else _LISTEN.value
  access = access_lib.server_access(
    address, edge_flags.token(), _CERT.value, _KEY.value
  )
  compilation.enable_cache(compilation.default_cache())
  interrupt = cli.Interrupt()
  served = server_lib.serve(
    config,
    address,
    access,
    rules=Rules(_QUEUE.value, _RATE.value),
    capacity=Capacity(
      _SESSIONS.value, _FORGET.value, int(1e6 * _MESSAGE.value)
    ),
    timing=edge_flags.timing(),
    store=_store(config),
    note_fn=_note,
  )
  url = served.server.url
  print(f"listening on {url}", flush=True)
  device = _smoke_device(url) if _SMOKE.value else None
  try:
    _watch(served, interrupt, device)
  finally:
    served.close(_LOG_SECONDS)
  print(_in_words(served))
  if device is not None:
    return device.returncode or 0
  return interrupt.exit_code()


def _store(config):
  if not config.workdir:
    return None
  folder = pathlib.Path(config.workdir).expanduser() / _SESSIONS_FOLDER
  return Store(folder, _KEPT.value)


def _smoke_device(url):
  command = [sys.executable, "-m", "experiments.edge_client", "--smoke"]
  return subprocess.Popen([*command, f"--server={url}"])


def _watch(served, interrupt, device):
  """Waits for the end; logs every few seconds what was done."""
  logged, last = "", time.monotonic()
  while not interrupt.is_wanted():
    time.sleep(_POLL_SECONDS)
    if device is not None and device.poll() is not None:
      return
    if time.monotonic() - last < _LOG_SECONDS:
      continue
    last, words = time.monotonic(), _in_words(served)
    if words != logged:
      _note(words)
    logged = words


def _in_words(served):
  """The server so far, in a line."""
  sessions = served.registry.sessions()
  counts = [session.counts for session, _ in sessions]
  total = lambda name: sum(getattr(count, name) for count in counts)
  lost = total("num_refused") + total("num_dropped")
  traffic = served.server.traffic
  return (
    f"{sum(there for _, there in sessions)} of {len(sessions)} devices are "
    f"connected, "
    f"{total('num_frames')} key frames ({lost} skipped), "
    f"{total('num_rounds')} training rounds ({total('num_failed')} failed), "
    f"{total('num_updates')} updates; "
    f"{traffic.up / 1e6:.2f} MB up, {traffic.down / 1e6:.2f} down"
  )


def _note(line):
  print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
  cli.run(main)

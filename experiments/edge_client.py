r"""Segments a stream on a device; a remote server trains the student.

    python -m experiments.edge_client --smoke
    python -m experiments.edge_client --server=ws://127.0.0.1:7777 \
        --stream=synthetic:street --height=96 --width=160 --workdir=runs/device

The first starts a tiny server of its own and takes half a minute. Both print
frames a second, updates and the Kbps up and down, and write metrics.jsonl (a
line a frame) and summary.json. The server is `experiments.edge_server`; give
both the same --classes, --init, --model and --seed.

Every frame is answered at once with the newest weights, also while the server
is slow, gone or restarted. --wait waits as ShadowTutor does, once a key frame
is --delta_min frames old and its update has not arrived. Files are played as
fast as the student runs; with --realtime at their own rate. The client does not
need torch.
"""

import contextlib
import queue
import subprocess
import sys
import tempfile

from absl import flags

from experiments import cli, edge_flags, progress, run_flags
from ojd.edge import access
from ojd.edge import player as player_lib
from ojd.edge.player import Pace, Player
from ojd.errors import UserError
from ojd.network import messages
from ojd.run import compilation, stats
from ojd.run import config as config_lib

flags.adopt_module_key_flags(run_flags)
flags.adopt_module_key_flags(edge_flags)
_SERVER = flags.DEFINE_string(
  "server", "", "address of the server: ws://HOST:PORT or wss://HOST:PORT"
)
_CA = flags.DEFINE_string(
  "tls_ca", "", "a file with the certificates to trust; empty: the system's"
)
_CODEC = flags.DEFINE_enum(
  "codec",
  "jpeg",
  list(messages.CODECS),
  "how key frames travel; h264: as clips, for systems that train by the clock",
)
_KBPS = flags.DEFINE_float("up_kbps", 200.0, "bit rate of --codec=h264")
_PROGRAM = flags.DEFINE_string(
  "program",
  "",
  "a student from replay --export, used instead of a network of this package; "
  "it is code: use only a file that you trust",
)
_WAIT = flags.DEFINE_bool(
  "wait",
  False,
  "wait for an update once its key frame is --delta_min frames old",
)
_WAIT_SECONDS = flags.DEFINE_float(
  "wait_seconds", 60.0, "the most seconds that --wait waits"
)
_PATIENCE = flags.DEFINE_float(
  "patience", 30.0, "seconds without an update until the next key frame is sent"
)
_REAL_TIME = flags.DEFINE_bool("realtime", False, "play a file at its own rate")
_SMOKE = flags.DEFINE_bool(
  "smoke", False, "use a tiny stream and a server of its own"
)

_USED = (
  *("stream", "start_frame", "every", "num_frames", "height", "width"),
  *("workdir", "classes", "seed", "delta_min", "precision"),
  *("model", "init"),
)
_SMOKE_DEFAULTS = {"height": 64, "width": 96, "num_frames": 40}
_SERVER_SMOKE = ("--listen=127.0.0.1:0", "--system=shadowtutor", "--u_max=2")


def main() -> int:
  """Plays the stream that the flags ask for."""
  edge_flags.refuse_others(_USED, "it is the server's, edge_server has it")
  config = run_flags.run_config(_SMOKE_DEFAULTS if _SMOKE.value else None)
  if _SMOKE.value and not config.workdir:
    config = run_flags.with_workdir(config, tempfile.mkdtemp(prefix="ojd-"))
  config_lib.check(config)
  player_lib.check_workdir(config)
  edge_flags.check_positive(
    up_kbps=_KBPS.value,
    wait_seconds=_WAIT_SECONDS.value,
    patience=_PATIENCE.value,
  )
  if not _SERVER.value and not _SMOKE.value:
    raise UserError(
      "--server=ws://HOST:PORT is missing: the server that trains"
    )
  compilation.enable_cache(compilation.default_cache())
  with _server() as url:
    dial = access.client_dial(url, edge_flags.token(), _CA.value)
    return _play(config, dial)


@contextlib.contextmanager
def _server():
  """The address of the server; with --smoke of one started here."""
  if _SERVER.value:
    yield _SERVER.value
    return
  command = [sys.executable, "-m", "experiments.edge_server", *_SERVER_SMOKE]
  server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
  try:
    words = server.stdout.readline().split()
    if not words:
      raise RuntimeError("the server of --smoke did not start")
    yield words[-1]
  finally:
    server.terminate()
    server.communicate()


def _play(config, dial):
  """Plays the stream and prints a summary; returns the exit code."""
  interrupt, notes = cli.Interrupt(), queue.SimpleQueue()
  options = config_lib.bound_system(config).options
  wait_after = options["delta_min"] if _WAIT.value or _SMOKE.value else None
  settings = player_lib.Settings(
    dial,
    *(_CODEC.value, _KBPS.value, _PROGRAM.value),
    Pace(_REAL_TIME.value, wait_after, _WAIT_SECONDS.value),
    *(_PATIENCE.value, edge_flags.timing()),
  )
  watcher = progress.watcher()
  try:
    player = player_lib.make_player(
      config,
      settings,
      note_fn=notes.put,
      should_stop=interrupt.is_wanted,
      progress_fn=lambda player: watcher(_progress(player, notes)),
    )
    summary = player.run()
  finally:
    watcher.close()
  while not notes.empty():
    print(notes.get(), file=sys.stderr)
  print(_in_words(summary))
  print(f"metrics: {config.workdir}/metrics.jsonl")
  if summary["refusal"]:
    print(f"error: {summary['refusal']}", file=sys.stderr)
    return cli.FAILURE
  return interrupt.exit_code()


def _progress(player: Player, notes) -> stats.Progress:
  """The progress of a player, with news of the network."""
  news = []
  while not notes.empty():
    news.append(notes.get())
  totals, limits = player.totals, (player.num_frames, player.stream_frames)
  return stats.Progress(
    num_frames=totals.num_frames + totals.num_skipped,
    total=min((n for n in limits if n is not None), default=None),
    fps=totals.fps,
    stride=player.client.device.plan.schedule.stride,
    num_keys=player.client.counts.num_keys,
    num_updates=player.client.device.counts.num_updates,
    miou=totals.miou(),
    problem="; ".join(news),
  )


def _in_words(summary):
  """A client's summary in three lines."""
  stale, miou = summary["staleness"], summary["miou"]["mean"]
  state = "done" if summary["finished"] else "stopped"
  age = "no update came"
  if stale["mean"] is not None:
    age = f"weights {stale['mean']:.1f} frames old, {stale['max']} at most"
  return (
    f"{state}: {summary['num_frames']} frames at {summary['fps']:.1f} fps, "
    f"{summary['num_key_frames']} key frames, {summary['num_updates']} updates"
    f" ({summary['num_whole_updates']} of all weights), "
    f"{summary['num_reconnects']} reconnects\n"
    f"{summary['kbps_up']:.0f} Kbps up, {summary['kbps_down']:.0f} Kbps down; "
    f"{age}\n"
    "mIoU against the truth: "
    + ("not measured" if miou is None else f"{miou:.3f}")
  )


if __name__ == "__main__":
  cli.run(main)

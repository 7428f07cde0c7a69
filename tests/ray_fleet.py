"""A fleet on a Ray of its own, some of which is lost on the way; for tests.

    python -m tests.ray_fleet DIR WHAT...

WHAT, in turn while a stream runs: `replica` kills one with SIGKILL, `worker`
the worker actor that runs the stream, `join` lets a node come, `leave` lets one
go. Prints JSON. `alone` runs the stream without any Ray. `local` says where a
local cluster listens, and what a process without its token gets from it.
"""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from concurrent import futures

import psutil

from ojd.fleet import folder, listing
from ojd.fleet import ray as cluster_lib
from ojd.fleet import runner as fleet_runner
from ojd.run import compilation, runner
from tests.reference import small_run

NUM_FRAMES, MANY_FRAMES = 200, 1500  # while a node comes
_FRAMES_BETWEEN = 16  # two things that happen
_STRANGER = """
import sys
from ray._raylet import GcsClient
print(GcsClient(sys.argv[1]).internal_kv_keys(b"", None, 3))
"""
CONFIG = dataclasses.replace(
  small_run.CONFIG,
  **{"stream": "", "teacher": "mask_rcnn_tiny", "model": "jitnet:width=0.05"},
  **{"delta_min": None, "u_max": 2, "seed": 0, "num_frames": NUM_FRAMES},
)


def entries(number: int) -> list[listing.Entry]:
  """So many streams of people."""
  uri = "synthetic:sports?num_frames=1500&seed={}"
  return [listing.Entry(f"s{i}", uri.format(i)) for i in range(number)]


def main() -> None:
  """Runs, and tells what came of it."""
  # Ray's workers are to have their share beside other tests.
  os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112, its own name
  path, *wanted = sys.argv[1:]
  if wanted == ["alone"]:
    return _run_alone(pathlib.Path(path))
  if wanted == ["local"]:
    return print(json.dumps(_visit_local()))
  import ray
  from ray import cluster_utils

  from ojd.fleet import ray_actors, ray_runner

  head = {"num_cpus": 2, "include_dashboard": False}
  cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
  second = cluster.add_node(num_cpus=1) if "leave" in wanted else None
  ray.init(cluster.address, log_to_driver=False, logging_level="error")
  seen: dict = {"news": []}
  note = lambda progress: progress.news and seen["news"].append(progress.news)
  site = pathlib.Path(path)
  num_frames = MANY_FRAMES if "join" in wanted else NUM_FRAMES
  config = dataclasses.replace(CONFIG, workdir=path, num_frames=num_frames)
  request = fleet_runner.Request(site, config, entries(3))
  plan = ray_actors.Plan(num_workers=2, num_replicas=2)
  command = lambda config: f"a test of {config.stream}"
  # Nodes are added by the main thread alone.
  with futures.ThreadPoolExecutor(1) as pool:
    running = pool.submit(
      ray_runner.run, request, plan, command, progress_fn=note
    )
    _let_happen(wanted, site, cluster, second, seen, running.done)
    print(json.dumps({"summary": running.result(), **seen}))


def _run_alone(path):
  compilation.enable_cache(compilation.default_cache())
  (entry,) = entries(1)
  flags = {"stream": entry.uri, "workdir": str(path / entry.name)}
  runner.run(dataclasses.replace(CONFIG, **flags), "a test")


def _visit_local():
  """Addresses of all sockets that listen, and the end of two strangers."""
  cluster_lib.connect(cluster_lib.LOCAL, num_cpus=1)
  import ray

  actor = ray.remote(collections.Counter).options(num_cpus=0).remote()
  ray.get(actor.total.remote())
  tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
  sockets = [c for x in tree for c in x.net_connections("inet")]
  listening = {c.laddr.ip for c in sockets if c.status == psutil.CONN_LISTEN}
  plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
  wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 64}
  address = ray.get_runtime_context().gcs_address
  ends = [
    subprocess.run(
      [sys.executable, "-c", _STRANGER, address],
      env=environment,
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
    )
    for environment in (os.environ, plain, plain | wrong)
  ]
  answers = [(end.returncode, end.stdout + end.stderr) for end in ends]
  return {"listening": sorted(listening), "answers": answers}


def _let_happen(wanted, site, cluster, second, seen, is_over):
  """Lets one thing after another happen while the first stream runs.

  What is on disk tells where it is: what the fleet tells is seconds old, in
  which the stream may end.
  """
  stream = site / folder.STREAMS / "s0"
  for i, what in enumerate(wanted):
    while _last_checkpoint(stream) < (i + 1) * _FRAMES_BETWEEN:
      if is_over():
        return
      time.sleep(0.01)
    if what == "join":
      seen["joined"] = cluster.add_node(num_cpus=1).node_id
    elif what == "leave":
      cluster.remove_node(second)
    elif what == "worker":
      seen[what] = _kill("StreamWorker", stream)
    else:
      seen[what] = _kill("TeacherReplica")


def _last_checkpoint(stream):
  """The frame of a stream's last whole checkpoint; 0 before there is one."""
  names = [path.name for path in stream.glob("checkpoints/*")]
  return max((int(name) for name in names if name.isdecimal()), default=0)


def _kill(name, holding=None):
  """Kills the process of one such actor, that holds a file of a folder.

  A descendant of this one: other clusters may run beside it.
  """
  for process in psutil.Process().children(recursive=True):
    with contextlib.suppress(psutil.Error):
      if not "".join(process.cmdline()).startswith(f"ray::{name}"):
        continue
      files = [file.path for file in process.open_files()]
      if holding is None or any(x.startswith(str(holding)) for x in files):
        process.kill()
        return process.pid


if __name__ == "__main__":
  main()

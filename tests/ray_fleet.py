"""A fleet on a Ray of its own, some of which is lost on the way; for tests.

    python -m tests.ray_fleet DIR WHAT...

WHAT: `crew` and `replica` kill an actor with SIGKILL while the streams run,
`join` lets a node come, `leave` lets one go. Prints JSON.
"""

import json
import os
import pathlib
import signal
import sys
import threading
import time

import ray
from ray import cluster_utils

from ojd.fleet import fleet, listing
from ojd.fleet.cluster import driver
from ojd.run.config import RunConfig

NUM_FRAMES = 300
CONFIG = RunConfig(
  teacher="mask_rcnn_tiny",
  init="random",
  width_multiplier=0.05,
  height=48,
  width=64,
  classes="person",
  learning_rate=0.03,
  u_max=2,
  checkpoint_every=3,
  num_frames=NUM_FRAMES,
  overlay=False,
)


def entries(number: int) -> list[listing.Entry]:
  """So many streams of people."""
  uri = "synthetic:sports?num_frames=300&seed={}"
  return [listing.Entry(f"s{i}", uri.format(i)) for i in range(number)]


def command(config: RunConfig) -> str:
  """How a stream is run alone."""
  return f"a test of {config.stream}"


def main() -> None:
  """Runs, and tells what came of it."""
  path, *wanted = sys.argv[1:]
  cluster = cluster_utils.Cluster(
    initialize_head=True,
    head_node_args={"num_cpus": 2, "include_dashboard": False},
  )
  second = cluster.add_node(num_cpus=1) if "leave" in wanted else None
  ray.init(cluster.address, log_to_driver=False, logging_level="error")
  seen: dict = {"nodes": [], "news": []}
  mishaps = threading.Thread(
    target=_let_happen, args=(cluster, second, wanted, seen), daemon=True
  )
  is_begun = threading.Event()

  def note(progress):
    if progress.news:
      seen["news"].append(progress.news)
    frames = [x.progress.num_frames for x in progress.members if x.progress]
    is_on_the_way = min(frames, default=0) > 30
    are_all = len(frames) == len(progress.members)
    if is_on_the_way and are_all and not is_begun.is_set():
      is_begun.set()
      mishaps.start()

  config = dict(CONFIG.__dict__, workdir=path)
  request = fleet.Request(pathlib.Path(path), RunConfig(**config), entries(3))
  plan = driver.Plan(num_crews=2, num_replicas=2)
  begun = time.monotonic()
  found = driver.run(request, plan, command, progress_fn=note)
  seen["seconds"] = time.monotonic() - begun
  print(json.dumps({"summary": found, **seen}))


def _let_happen(cluster, second, wanted, seen):
  for what in wanted:
    if what == "join":
      seen["joined"] = cluster.add_node(num_cpus=1).node_id
    elif what == "leave":
      cluster.remove_node(second)
    else:
      seen[what] = _kill({"crew": "Crew", "replica": "Replica"}[what])
    time.sleep(2)


def _kill(name):
  """Kills the process of one such actor."""
  for folder in pathlib.Path("/proc").iterdir():
    try:
      words = (folder / "cmdline").read_bytes().decode()
    except (OSError, UnicodeDecodeError):
      continue
    if words.startswith(f"ray::{name}") and _is_of_here(int(folder.name)):
      os.kill(int(folder.name), signal.SIGKILL)
      return int(folder.name)
  return None


def _is_of_here(pid):
  """Whether it is a descendant: other clusters may run beside this one."""
  while pid > 1:
    if pid == os.getpid():
      return True
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    pid = int(stat.rpartition(")")[2].split()[1])
  return False


if __name__ == "__main__":
  main()

"""A fleet on a Ray of its own, some of which is lost on the way; for tests.

    python -m tests.ray_fleet DIR WHAT...

WHAT: `crew` and `replica` kill an actor with SIGKILL while the streams run,
`join` lets a node come, `leave` lets one go. Prints JSON. `alone` runs one of
the streams without any Ray.
"""

import dataclasses
import json
import os
import pathlib
import signal
import sys
import time

import ray
from ray import cluster_utils

from ojd.fleet import fleet, listing
from ojd.fleet.cluster import driver
from ojd.run import compilation, runner
from ojd.run.config import RunConfig

NUM_FRAMES, MANY_FRAMES = 200, 1500  # while a node comes
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
  uri = "synthetic:sports?num_frames=1500&seed={}"
  return [listing.Entry(f"s{i}", uri.format(i)) for i in range(number)]


def command(config: RunConfig) -> str:
  """How a stream is run alone."""
  return f"a test of {config.stream}"


def main() -> None:
  """Runs, and tells what came of it."""
  path, *wanted = sys.argv[1:]
  if wanted == ["alone"]:
    return _run_alone(pathlib.Path(path))
  cluster = cluster_utils.Cluster(
    initialize_head=True,
    head_node_args={"num_cpus": 2, "include_dashboard": False},
  )
  second = cluster.add_node(num_cpus=1) if "leave" in wanted else None
  ray.init(cluster.address, log_to_driver=False, logging_level="error")
  seen: dict = {"news": []}
  due = [time.monotonic()]

  def note(progress):
    """Lets the next thing happen once all streams are on their way."""
    if progress.news:
      seen["news"].append(progress.news)
    frames = [x.progress.num_frames for x in progress.members if x.progress]
    is_on_the_way = min(frames, default=0) > 20
    are_all = len(frames) == len(progress.members)
    is_due = time.monotonic() >= due[0]
    if wanted and is_on_the_way and are_all and is_due:
      _let_happen(wanted.pop(0), cluster, second, seen)
      due[0] = time.monotonic() + 1.0

  num_frames = MANY_FRAMES if "join" in wanted else NUM_FRAMES
  config = dataclasses.replace(CONFIG, workdir=path, num_frames=num_frames)
  request = fleet.Request(pathlib.Path(path), config, entries(3))
  plan = driver.Plan(num_crews=2, num_replicas=2)
  begun = time.monotonic()
  found = driver.run(request, plan, command, progress_fn=note)
  seen["seconds"] = time.monotonic() - begun
  print(json.dumps({"summary": found, **seen}))


def _run_alone(path):
  compilation.enable_cache(compilation.default_cache())
  for entry in entries(1):
    flags = {"stream": entry.uri, "workdir": str(path / entry.name)}
    runner.run(dataclasses.replace(CONFIG, **flags), "a test")


def _let_happen(what, cluster, second, seen):
  if what == "join":
    seen["joined"] = cluster.add_node(num_cpus=1).node_id
  elif what == "leave":
    cluster.remove_node(second)
  else:
    seen[what] = _kill({"crew": "Crew", "replica": "Replica"}[what])


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

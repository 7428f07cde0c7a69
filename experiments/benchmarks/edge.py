"""A student on a device whose teacher is on a server, by simulation.

edge_mask_vs_entropy
    bytes that encode which twentieth of all coordinates is sent, over their
    entropy (at most 1.05)
edge_partial_vs_full
    an update of ShadowTutor's over one of all parameters
edge_traffic_vs_every_frame
    what ShadowTutor sends up and down, over every frame up and its class map
    down (0.05 as published)
edge_at_N_mbps_vs_remote
    a frame of ShadowTutor on a slow device, over a frame sent to the teacher
    and answered (0.33 as published)
"""

import dataclasses
import functools
import pathlib
import tempfile

import numpy as np

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Case
from ojd.formats import run_files
from ojd.network import mask_code, simulation, weights
from ojd.run import config as config_lib
from ojd.run import runner, workdir
from ojd.run.config import RunConfig

# What is published of Adaptive Model Streaming: its student's coordinates, the
# twentieth of them that travel, the seconds between.
_NUM_COORDS, _FRACTION, _PERIOD = 2_113_043, 0.05, 10
_MBPS = (80, 40, 20, 8)
# A device that takes 143 ms a frame, a server that takes 50 ms for the teacher
# and 10 for an update.
_PACE = simulation.Pace(teacher_ms=50, update_ms=10, device_ms=143)
_RTT_MS = 20

_CONFIG = RunConfig(
  stream="synthetic:street?seed=1",
  teacher="ground_truth",
  system="shadowtutor",
  model="shadow",
  link="ideal",
  overlay=False,
  eval_every=0,
)


def mask(at):
  """The code of which coordinates were chosen, over the least it could be."""
  del at
  rng = np.random.default_rng(0)
  chosen = np.zeros(_NUM_COORDS, bool)
  count = round(_FRACTION * _NUM_COORDS)
  chosen[rng.choice(_NUM_COORDS, count, replace=False)] = True
  _, code = mask_code.encode(chosen, [_NUM_COORDS])
  _, gzipped = mask_code.encode(chosen, [_NUM_COORDS], mask_code.GZIP)
  least = weights.mask_bytes(count, _NUM_COORDS)
  kbps = lambda mask: 8e-3 * (2 * count + len(mask)) / _PERIOD
  return measure.of_ratios(
    "edge_mask_vs_entropy",
    [len(code) / least],
    f"a random twentieth of {_NUM_COORDS:,} coordinates every {_PERIOD} s: "
    f"{kbps(code):.0f} Kbps, and {kbps(gzipped):.0f} with the mask as gzip",
  )


def decoder_alone(at):
  """An update of the decoder alone over one of all parameters."""
  sizes = []
  for system in ("shadowtutor", "shadowtutor:full"):
    rows = _run(at.size, system)
    sizes.append(np.mean([r["bytes_down"] for r in rows if "bytes_down" in r]))
  note = f"{sizes[0]:,.0f} and {sizes[1]:,.0f} bytes a key frame"
  return measure.of_ratios("edge_partial_vs_full", [sizes[0] / sizes[1]], note)


def traffic(at):
  """All that ShadowTutor sends over all frames up and class maps down."""
  rows = _run(at.size, "shadowtutor")
  names = ("bytes_up", "bytes_down")
  ours = sum(row.get(name, 0) for row in rows for name in names)
  every = 4 * at.size[0] * at.size[1] * len(rows)
  keys = sum(row["is_key"] for row in rows)
  note = f"{keys / len(rows):.1%} key frames of {len(rows)}, {at.size_text}"
  return measure.of_ratios("edge_traffic_vs_every_frame", [ours / every], note)


def throughput(mbps, at):
  """A frame of ShadowTutor over a frame answered by the teacher, remotely."""
  rows = _run(at.size, "shadowtutor")
  network = simulation.Link(up_mbps=mbps, down_mbps=mbps, rtt_ms=_RTT_MS)
  # As many frames a second as the device can take.
  least = config_lib.bound_system(_CONFIG).options["delta_min"]
  rules = simulation.Rules(1e3, _PACE, least)
  ours = 1e3 / retimed(rows, network, rules)["fps"]
  bits = 8 * 4 * at.size[0] * at.size[1]
  remote = 1e-3 * bits / mbps + _RTT_MS + _PACE.teacher_ms
  note = (
    f"simulated: {_PACE.device_ms} ms a frame on the device, the teacher "
    f"{_PACE.teacher_ms}, a round trip {_RTT_MS}, {at.size_text}"
  )
  name = f"edge_at_{mbps}_mbps_vs_remote"
  return measure.of_pairs(name, [(ours, remote)], note)


def retimed(rows, network, rules, seed=0):
  """The summary of a run's messages over another network.

  Exact for methods that wait: what they learn does not depend on the network.
  """
  timeline = simulation.Timeline(simulation.init(network, seed))
  for t, row in enumerate(rows):
    timeline = simulation.begin_frame(rules, timeline, t)
    if "bytes_up" in row:
      timeline = simulation.send_frames(
        rules, timeline, row["bytes_up"], 1, row["num_updates"]
      )
    if "bytes_down" in row:
      timeline, _ = simulation.send_update(
        rules, timeline, t, row["bytes_down"]
      )
  return simulation.summary(rules, timeline, len(rows))


@functools.cache
def _run(size, system):
  """The lines of a run of some ten key frames."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "run"
    config = dataclasses.replace(
      _CONFIG,
      system=system,
      height=size[0],
      width=size[1],
      num_frames=96,
      workdir=str(path),
    )
    config_lib.check(config)
    runner.run(config, "")
    return run_files.read_metrics(path / workdir.METRICS)


CASES = [
  Case(fn, measure.BIG)
  for fn in (
    *(mask, decoder_alone, traffic),
    *(functools.partial(throughput, mbps) for mbps in _MBPS),
  )
]

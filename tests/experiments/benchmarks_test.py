"""What the benchmarks compare is the same work on both sides."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import traverse_util

from experiments import benchmarks
from experiments.benchmarks import (
  checkpoint,
  delta,
  io,
  measure,
  run,
  streams,
  student,
  torch_networks,
)
from ojd import distill
from ojd.models import jitnet
from ojd.types import Labels
from tests import binaries
from tests.reference import scenes
from tests.reference.loop_run import SYSTEM

# From Flax names to torch's, one after the other.
_NAMES = {
  **{"decoder_conv2": "head.0", "decoder_conv1": "head.1"},
  **{"/conv1/conv/": ".body.0.0.", "/conv1/norm/": ".body.0.1."},
  **{"/conv2_1x3": ".body.1", "/conv2_3x1": ".body.2"},
  **{"/conv/": ".0.", "/norm/": ".1.", "/": "."},
  **{"kernel": "weight", "scale": "weight"},
}


def _state(params):
  """Flax parameters under torch's names."""
  state = {}
  for name, x in traverse_util.flatten_dict(params, sep="/").items():
    for ours, theirs in _NAMES.items():
      name = name.replace(ours, theirs)
    x = torch.tensor(np.asarray(x))
    state[name] = x.permute(3, 2, 0, 1) if x.ndim == 4 else x
  return state


@pytest.mark.parametrize(
  ("num_classes", "size"), [(9, (96, 128)), (2, (65, 97))]
)
def test_torch_student_has_the_same_logits(num_classes, size):
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
  net = jitnet.JITNet(num_classes)
  params = jax.jit(net.init)(jax.random.key(0), frame[None])["params"]
  baseline = torch_networks.make("jitnet", num_classes, "cpu")
  baseline.load_state_dict(_state(params), strict=True)
  expected = jax.jit(net.apply)({"params": params}, frame[None])[0]
  with torch.inference_mode():
    logits = baseline(torch.as_tensor(frame)[None])[0].permute(1, 2, 0)
  np.testing.assert_allclose(logits, expected, atol=2e-3)
  classes = torch_networks.forward_fn(baseline, frame)()[0]
  assert np.mean(classes.numpy() == np.argmax(expected, -1)) > 0.999


def test_torch_update_lowers_the_loss():
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
  classes = (frame[..., 0] > 127).astype(np.uint8)
  net = torch_networks.make("jitnet", 2, "cpu")
  step = torch_networks.update_fn(net, frame, classes)
  agreement = lambda: np.mean(
    torch_networks.forward_fn(net, frame)()[0].numpy() == classes
  )
  before = agreement()
  for _ in range(30):
    step()
  assert agreement() > max(before, 0.5)


NUM_FRAMES = 14


def _streams(num_streams):
  """Frames [T, S, ...] and labels that make the key frames differ."""
  made = lambda seed: scenes.coloured_squares(NUM_FRAMES, seed=seed)
  frames, labels = zip(*map(made, range(num_streams)), strict=True)
  frames = np.stack(frames, 1)
  # By the labels of the last nothing is there: it is right at once.
  classes = np.stack([x.classes for x in labels], 1)
  classes[:, -1] = 0
  weights = np.stack([x.weights for x in labels], 1)
  keys = jax.random.split(jax.random.key(0), num_streams)
  return streams.init(SYSTEM, keys, frames[0]), frames, Labels(classes, weights)


@pytest.mark.parametrize(
  ("num_devices", "bucket"), [(1, None), (2, None), (1, 1), (1, 3)]
)
def test_many_streams_are_streams_alone(num_devices, bucket):
  states, frames, labels = _streams(4)
  run = streams.scan_over(jax.devices()[:num_devices], SYSTEM, bucket=bucket)
  ended, (classes, infos) = run(states, frames, labels, 0)
  keys = np.asarray(infos.is_key)
  assert len({tuple(each) for each in keys.T}) > 1, "all are due together"
  scan = jax.jit(functools.partial(distill.scan_stream, SYSTEM))
  for i in range(4):
    alone, (expected, info) = scan(
      jax.tree.map(lambda x, i=i: x[i], states),
      frames[:, i],
      Labels(labels.classes[:, i], labels.weights[:, i]),
    )
    np.testing.assert_array_equal(keys[:, i], info.is_key)
    np.testing.assert_array_equal(infos.num_updates[:, i], info.num_updates)
    np.testing.assert_allclose(infos.loss[:, i], info.loss, atol=1e-5)
    np.testing.assert_array_equal(classes[:, i], expected)
    close = lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5)
    jax.tree.map(close, ended, alone)


@pytest.mark.parametrize("bucket", [None, 1])
def test_only_due_streams_learn(bucket):
  """Learning is called for the due streams only: counted, not assumed."""
  called = []

  def counted(*args):
    jax.debug.callback(lambda: called.append(None))
    return SYSTEM.learn(*args)

  states, frames, labels = _streams(3)
  spied = SYSTEM._replace(learn=counted)
  scan = jax.jit(functools.partial(streams.scan, spied, bucket=bucket))
  _, (_, infos) = scan(states, frames, labels)
  jax.effects_barrier()
  assert len(called) == int(jnp.sum(infos.is_key)) < 3 * NUM_FRAMES


def test_every_entry_says_what_it_measures():
  for name in benchmarks.ENTRIES:
    entry = benchmarks.load(name)
    assert entry.CASES and "_" in entry.__doc__


def test_ratio_is_ours_over_the_opponents():
  result = measure.of_pairs("a_vs_b", [(1, 2), (3, 4), (9, 10)], "")
  assert result[:4] == ("a_vs_b", 0.75, 3.0, 4.0)


def test_json_is_a_list_of_results(tmp_path):
  path = tmp_path / "found.json"
  binaries.succeed("benchmark", "--smoke", "--what=draw", f"--json={path}")
  (row,) = json.loads(path.read_text())
  assert row["name"] == "drawing_vs_student"
  for key in ("ratio", "ms", "opponent_ms", "spread"):
    assert isinstance(row[key], float)


@pytest.mark.parametrize(
  "case",
  [
    run.run_loop,
    io.read_share,
    student.key_norm,
    checkpoint.share,
    delta.follow,
  ],
)
def test_entries_measure(case):
  """Those whose parts few others use."""
  result = case(measure.Setting((48, 64), 1))
  assert result.ratio > 0 and result.note

"""What the benchmarks compare is the same work on both sides."""

import functools
import json

import jax
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
from ojd.models import jitnet
from tests import binaries

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
    delta.follow,
    # They compile large programs.
    pytest.param(checkpoint.share, marks=pytest.mark.slow),
    pytest.param(functools.partial(streams.many, 2), marks=pytest.mark.slow),
  ],
)
def test_entries_measure(case):
  """Those whose parts few others use."""
  result = case(measure.Setting((48, 64), 1))
  # An overhead is a difference: on a busy machine it may be below 0.
  assert np.isfinite(result.ratio) and result.note

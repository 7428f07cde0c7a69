"""The opponent of the benchmarks is the same network."""

import jax
import numpy as np
import pytest
import torch
from flax import traverse_util

from experiments import torch_student
from ojd.models import jitnet

_PLACES = {
  "conv1/conv": "conv1.0",
  "conv1/norm": "conv1.1",
  "conv2/conv": "conv2.0",
  "conv2/norm": "conv2.1",
  "decoder_conv2/conv": "head.0.0",
  "decoder_conv2/norm": "head.0.1",
  "decoder_conv1/conv": "head.1.0",
  "decoder_conv1/norm": "head.1.1",
  "logits": "logits",
}
_IN_UNIT = {
  "preact": "preact",
  "shortcut": "shortcut",
  "conv1/conv": "body.0.0",
  "conv1/norm": "body.0.1",
  "conv2_1x3": "body.1",
  "conv2_3x1": "body.2",
}
for _name in ("enc1", "enc2", "enc3", "dec1", "dec2", "dec3"):
  _PLACES |= {f"{_name}/{k}": f"{_name}.{v}" for k, v in _IN_UNIT.items()}


def _state(params):
  """Flax parameters under torch's names."""
  state = {}
  for name, x in traverse_util.flatten_dict(params, sep="/").items():
    layer, _, leaf = name.rpartition("/")
    x = torch.tensor(np.asarray(x))
    if leaf == "kernel":
      x = x.permute(3, 2, 0, 1)
    leaf = "bias" if leaf == "bias" else "weight"
    state[f"{_PLACES[layer]}.{leaf}"] = x
  return state


@pytest.mark.parametrize(
  ("num_classes", "size"), [(9, (96, 128)), (2, (65, 97))]
)
def test_same_logits_from_the_same_weights(num_classes, size):
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
  net = jitnet.JITNet(num_classes)
  params = jax.jit(net.init)(jax.random.key(0), frame[None])["params"]
  opponent = torch_student.make(num_classes, "cpu")
  opponent.load_state_dict(_state(params), strict=True)
  expected = jax.jit(net.apply)({"params": params}, frame[None])[0]
  with torch.inference_mode():
    logits = opponent(torch.as_tensor(frame)[None])[0].permute(1, 2, 0)
  np.testing.assert_allclose(logits, expected, atol=2e-3)
  classes = torch_student.forward_fn(opponent, frame)()[0]
  assert np.mean(classes.numpy() == np.argmax(expected, -1)) > 0.999


def test_update_lowers_the_loss():
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
  classes = (frame[..., 0] > 127).astype(np.uint8)
  net = torch_student.make(2, "cpu")
  step = torch_student.update_fn(net, frame, classes)
  agreement = lambda: np.mean(
    torch_student.forward_fn(net, frame)()[0].numpy() == classes
  )
  before = agreement()
  for _ in range(30):
    step()
  assert agreement() > max(before, 0.5)

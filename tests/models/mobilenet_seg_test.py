"""MobileNetV2 with DeepLabV3's head against torchvision's own modules."""

import jax
import numpy as np
import pytest
import torch
from flax import traverse_util
from torchvision.models import mobilenet_v2
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from experiments import torchvision_weights
from experiments.benchmarks import torch_networks
from ojd.models import describe, mobilenet_seg, pretrained, student
from tests.reference import torch_layers
from tests.reference.torch_layers import error, worst

FRAME = np.random.default_rng(0).integers(0, 256, (64, 80, 3)).astype(np.uint8)
NARROW = 0.1  # of nothing but eight and sixteen channels, to be quick


@pytest.mark.parametrize("width", [1.0, 0.35, 1.4])
def test_numbers_of_parameters_are_torchvisions(width):
  rows = describe.layer_table(mobilenet_seg.MobileNetSeg(21, width), 64, 64)
  theirs = mobilenet_v2(weights=None, width_mult=width)
  head = DeepLabHead(theirs.last_channel, 21, (6, 12, 18))
  count = lambda module: sum(p.numel() for p in module.parameters())
  backbone = [row for row in rows if row.name.startswith("backbone/")]
  assert describe.num_params(backbone) == count(theirs.features)
  assert describe.num_params(rows) == count(theirs.features) + count(head)


# Our names of the head's layers, by torchvision's.
HEAD = {
  "0/convs/0": "pyramid/point",
  "0/convs/1": "pyramid/rate6",
  "0/convs/2": "pyramid/rate12",
  "0/convs/3": "pyramid/rate18",
  "0/convs/4": "pyramid/pooling",
  "0/project": "pyramid/project",
  "1": "head/conv",
  "2": "head/norm",
  "4": "logits",
}


def _head_params(head):
  """Flat parameters of our head, of torchvision's."""
  params = {}
  for name, value in torch_layers.as_flax(head).items():
    layer, _, leaf = name.rpartition("/")
    if layer in HEAD:
      params[f"{HEAD[layer]}/{leaf}"] = value
    else:
      kind = "conv" if value.ndim == 4 else "norm"
      params[f"{HEAD[layer.rpartition('/')[0]]}/{kind}/{leaf}"] = value
  return params


def _params(net, width, dtype=np.float64):
  """Those of a torch net, as ours."""
  state = {f"features.{n}": x for n, x in net.features.state_dict().items()}
  backbone = torchvision_weights.convert(state, width)
  flat = {f"backbone/{name}": x for name, x in backbone.items()}
  flat |= _head_params(net.head)
  flat = {name: np.asarray(x, dtype) for name, x in flat.items()}
  return traverse_util.unflatten_dict(flat, sep="/")


def _torch_net(num_classes, width):
  """A net in double precision whose parameters are single numbers."""
  torch.manual_seed(0)
  net = torch_networks.TorchMobileNet(num_classes, width)
  for p in net.parameters():
    # Norms and biases away from ones and zeros, so that each of them matters.
    p.data += 0.05 * torch.randn(p.shape)
  net.double()
  # Of the means of ImageNet, which are no single numbers.
  double = lambda *x: 255 * torch.tensor(x, dtype=torch.float64)[:, None, None]
  net.mean = double(0.485, 0.456, 0.406)
  net.deviation = double(0.229, 0.224, 0.225)
  return net


def test_logits_and_gradients_equal_torch():
  net = _torch_net(3, NARROW)
  weights = np.random.default_rng(1).standard_normal((64, 80, 3))
  logits = net(torch.tensor(FRAME)[None])[0].permute(1, 2, 0)
  (logits * torch.tensor(weights)).mean().backward()
  apply = student.from_linen(mobilenet_seg.MobileNetSeg(3, NARROW)).apply

  @jax.jit
  def logits_and_gradients(params, frame, weights):
    ours, backward = jax.vjp(lambda p: apply(p, frame), params)
    return ours, backward(weights / weights.size)[0]

  params = _params(net, NARROW)
  with jax.enable_x64(True):
    ours, grads = logits_and_gradients(params, FRAME.astype(float), weights)
    grads = jax.tree.map(np.asarray, grads)
    assert error(ours, logits.detach().numpy()) < 1e-9
  single = jax.jit(apply)(_params(net, NARROW, np.float32), FRAME)
  assert error(single, logits.detach().numpy()) < 1e-3
  for p in net.parameters():
    p.data = p.grad
  expected = pretrained.flatten(_params(net, NARROW))
  # What is converted goes through single precision.
  assert worst(pretrained.flatten(grads), expected)[0] < 1e-6


def test_student_can_hold_its_norms():
  params = _params(_torch_net(3, NARROW), NARROW)
  net = student.from_linen(mobilenet_seg.MobileNetSeg(3, NARROW))
  with jax.enable_x64(True):
    logits, norms = jax.jit(net.observe)(params, FRAME.astype(float))
    again = jax.jit(net.apply_held)(params, norms, FRAME.astype(float))
    assert error(again, logits) < 1e-9
  num_norms = 1 + 2 + 16 * 3 + 1 + 4 + 1 + 1
  assert len(jax.tree.leaves(norms)) == 2 * num_norms

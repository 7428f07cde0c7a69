"""JITNet in torch, written from the published layer table alone.

Weights come in as the nested dict of a Flax student; nothing else is shared.
"""

import numpy as np
import torch
import torch.nn.functional as F


def to_torch(tree, requires_grad=False):
  """Nested dict of arrays -> the same of torch tensors, kernels as OIHW."""
  if isinstance(tree, dict):
    return {k: to_torch(v, requires_grad) for k, v in tree.items()}
  array = np.array(tree)
  if array.ndim == 4:
    array = array.transpose(3, 2, 0, 1)
  return torch.tensor(array, requires_grad=requires_grad)


def gradients(tree):
  """Gradients of such a dict, kernels back as HWIO."""
  if isinstance(tree, dict):
    return {k: gradients(v) for k, v in tree.items()}
  grad = tree.grad.numpy()
  return grad.transpose(2, 3, 1, 0) if grad.ndim == 4 else grad


def _norm(x, p):
  return F.batch_norm(
    x, None, None, p["scale"], p["bias"], training=True, eps=1e-5
  )


def _conv_norm_relu(x, p, stride=1):
  x = F.conv2d(x, p["conv"]["kernel"], stride=stride, padding=1)
  return F.relu(_norm(x, p["norm"]))


def _block(x, p, stride=1):
  active = F.relu(_norm(x, p["preact"]))
  if "shortcut" in p:
    s = p["shortcut"]
    shortcut = F.conv2d(active, s["kernel"], s["bias"], stride=stride)
  else:
    shortcut = x[:, :, ::stride, ::stride]
  y = _conv_norm_relu(active, p["conv1"], stride)
  for name, padding in (("conv2_1x3", (0, 1)), ("conv2_3x1", (1, 0))):
    y = F.conv2d(y, p[name]["kernel"], p[name]["bias"], padding=padding)
  return shortcut + y


def _resize(x, size):
  return F.interpolate(x, size, mode="bilinear", align_corners=True)


def logits(params, frames):
  """[B, H, W, 3] raw values -> [B, H, W, C], layers in the published order."""
  x = torch.as_tensor(frames, dtype=params["logits"]["kernel"].dtype)
  x = x.permute(0, 3, 1, 2)
  full = x.shape[2:]
  x = _conv_norm_relu(x, params["conv1"], 2)
  half = x.shape[2:]
  x = _conv_norm_relu(x, params["conv2"], 2)
  quarter = x.shape[2:]
  enc1 = _block(x, params["enc1"], 2)
  enc2 = _block(enc1, params["enc2"], 2)
  x = _block(_block(enc2, params["enc3"], 2), params["dec1"])
  x = torch.cat([enc2, _resize(x, enc2.shape[2:])], 1)
  x = _block(x, params["dec2"])
  x = torch.cat([enc1, _resize(x, enc1.shape[2:])], 1)
  x = _block(x, params["dec3"])
  x = _resize(_resize(x, quarter), half)
  x = _conv_norm_relu(x, params["decoder_conv2"])
  x = _conv_norm_relu(x, params["decoder_conv1"])
  p = params["logits"]
  x = F.conv2d(_resize(x, full), p["kernel"], p["bias"])
  return x.permute(0, 2, 3, 1)

"""Bilinear resize by corners or by edges, an axis at a time, fast on a CPU.

`jax.image.resize` is a dense matrix product, does not align corners, and
smooths where it shrinks.

Every step ends in `xla.cpu_barrier`: XLA's CPU back end would fuse it into each
step that reads it, compute it again there, and in their order of axes.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ojd import xla


def resize(
  x: jax.Array, size: Sequence[int], by_edges: bool = False
) -> jax.Array:
  """Bilinear resize with aligned corners.

  Args:
    x: [..., H, W, I] float.
    size: P, Q.
    by_edges: aligns the edges of the frame instead of the corner pixels, as
      with `align_corners=False` in torch.

  Returns:
    [..., P, Q, I].
  """
  for axis, size_out in zip((x.ndim - 3, x.ndim - 2), size, strict=True):
    x = _resize_axis(x, axis, size_out, by_edges)
  return x


def resize_few(
  x: jax.Array, size: Sequence[int], by_edges: bool = False
) -> jax.Array:
  """`resize` for few channels, which are vectorised over columns.

  The result is laid out as [..., P, I, Q] in memory, as the loss reads it.
  """
  x = _resize_axis(x, x.ndim - 2, size[1], by_edges)
  rows = xla.cpu_barrier(jnp.swapaxes(x, -1, -2))
  rows = _resize_axis(rows, x.ndim - 3, size[0], by_edges)
  return jnp.swapaxes(rows, -1, -2)


def _resize_axis(x, axis, size_out, by_edges):
  size_in = x.shape[axis]
  if size_out == size_in:
    return x
  is_double = axis == x.ndim - 2 and (size_out + 1) // 2 == size_in > 1
  if is_double and not by_edges:
    return _doubled(x, size_out)
  return _gathered(x, axis, size_out, by_edges)


def _taps(size_in: int, size_out: int, by_edges: bool = False):
  """Index and weight of the two inputs of each output; both [size_out, 2]."""
  if by_edges:
    position = (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5
    position = np.clip(position, 0, size_in - 1)
  else:
    scale = (size_in - 1) / (size_out - 1) if size_out > 1 else 0.0
    position = np.arange(size_out) * scale
  low = np.clip(np.floor(position).astype(np.int32), 0, max(size_in - 2, 0))
  high = np.minimum(low + 1, size_in - 1)
  fraction = np.where(high > low, position - low, 0.0)
  return np.stack([low, high], 1), np.stack([1 - fraction, fraction], 1)


def _transposed_taps(indices, weights, size_in):
  """The outputs that read each input, with their weights; [size_in, K].

  An input is read by few outputs, so a gather over those replaces the
  scatter-add that autodiff would make of the gather, and XLA of a loop.
  """
  readers = [[] for _ in range(size_in)]
  for output, (index, weight) in enumerate(zip(indices, weights, strict=True)):
    for i, w in zip(index, weight, strict=True):
      if w:
        readers[i].append((output, w))
  num_taps = max(1, *(len(reader) for reader in readers))
  table = np.zeros((size_in, num_taps, 2))
  for i, reader in enumerate(readers):
    if reader:
      table[i, : len(reader)] = reader
  return table[..., 0].astype(np.int32), table[..., 1]


def _gather_sum(x, axis, indices, weights):
  """Weighted sum of slices along an axis; indices, weights: [size_out, K]."""
  shape = [1] * x.ndim
  shape[axis] = -1
  total = None
  for index, weight in zip(indices.T, weights.T, strict=True):
    term = jnp.take(x, index, axis=axis, indices_are_sorted=True, mode="clip")
    term = term * jnp.asarray(weight.reshape(shape), x.dtype)
    total = term if total is None else total + term
  return xla.cpu_barrier(total)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gathered(x, axis, size_out, by_edges):
  """Any size to any other."""
  return _gather_sum(x, axis, *_taps(x.shape[axis], size_out, by_edges))


def _gathered_forward(x, axis, size_out, by_edges):
  return _gathered(x, axis, size_out, by_edges), x.shape[axis]


def _gathered_backward(axis, size_out, by_edges, size_in, g):
  taps = _taps(size_in, size_out, by_edges)
  taps = _transposed_taps(*taps, size_in)
  return (_gather_sum(xla.cpu_barrier(g), axis, *taps),)


_gathered.defvjp(_gathered_forward, _gathered_backward)


def _double_taps(size_in, size_out):
  """Weights of inputs k-1, k and k, k+1 in outputs 2k and 2k+1; 4 x [n]."""
  taps = np.zeros((2 * size_in, 3))
  indices, weights = _taps(size_in, size_out)
  for output, (index, weight) in enumerate(zip(indices, weights, strict=True)):
    taps[output, index - output // 2 + 1] += weight
  even, odd = taps[::2], taps[1::2]
  return even[:, 0], even[:, 1], odd[:, 1], odd[:, 2]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _doubled(x, size_out):
  """[..., n, I] -> [..., 2n or 2n - 1, I]: neighbours instead of gathers."""
  n = x.shape[-2]
  before, own, own_odd, after = _columns(_double_taps(n, size_out), x)
  even = _shifted(x, 1) * before + x * own
  odd = x * own_odd + _shifted(x, -1) * after
  pairs = jnp.stack([even, odd], axis=-2)
  doubled = pairs.reshape(*x.shape[:-2], 2 * n, x.shape[-1])
  return xla.cpu_barrier(doubled[..., :size_out, :])


def _columns(weights, x):
  """Each [n] so that it multiplies [..., n, I]."""
  shape = (1,) * (x.ndim - 2) + (-1, 1)
  return [jnp.asarray(w.reshape(shape), x.dtype) for w in weights]


def _shifted(x, by):
  """[..., n, I] shifted by one; the free end is repeated."""
  if by > 0:
    return jnp.concatenate([x[..., :1, :], x[..., :-1, :]], axis=-2)
  return jnp.concatenate([x[..., 1:, :], x[..., -1:, :]], axis=-2)


def _doubled_forward(x, size_out):
  return _doubled(x, size_out), x.shape[-2]


def _doubled_backward(size_out, n, g):
  """The gradient of input k, read by outputs 2k - 1 to 2k + 2."""
  before, own, own_odd, after = _double_taps(n, size_out)
  # A repeated end is not read.
  before, after = np.append(before[1:], 0.0), np.append(0.0, after[:-1])
  g = xla.cpu_barrier(g)
  missing = 2 * n - size_out
  if missing:
    fill = jnp.zeros((*g.shape[:-2], missing, g.shape[-1]), g.dtype)
    g = jnp.concatenate([g, fill], axis=-2)
  pairs = g.reshape(*g.shape[:-2], n, 2, g.shape[-1])
  even, odd = pairs[..., 0, :], pairs[..., 1, :]
  before, own, own_odd, after = _columns((before, own, own_odd, after), g)
  own = even * own + odd * own_odd
  return (
    xla.cpu_barrier(
      own + _shifted(even, -1) * before + _shifted(odd, 1) * after
    ),
  )


_doubled.defvjp(_doubled_forward, _doubled_backward)

"""Skip-Convolutions: from frame to frame, and only where something changed.

    r_t = x_t - x_{t-1},   z_t = z_{t-1} + G_t (W * r_t)

(Habibian et al., 2021) with a gate G_t of 0 or 1 for every pixel of the output.
As published, `forget`, a change too small for the gate is lost, and many such
changes leave the output wrong for good. Two ways of keeping it, each right for
any kernel and stride:

- `sum`: every output adds up what its window has changed by since it was last
  computed, and when that is enough it is computed again, from all of x_t, for
  the same multiplications. An output then never is further from the true one
  than the threshold allows. A residual will not do here: the outputs around an
  input pixel open at different times, so there is no one reference x that all
  of them have seen. Noise adds up as well.
- `reference`: gates at the input. Of every input pixel there is the value that
  all outputs have seen; where x_t is far from that, the difference is
  sent to every output that reads it. Then z is W * reference, always, and x is
  within the threshold of the reference; noise does not add up, but an output
  is computed wherever any pixel of its window was open.

The dense arrays here compute everything and keep what the gates let through:
`gmac` counts what would have been computed. With k = 1, without strides, both
are the update of x_{t-1} at the open pixels alone.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from ojd.errors import UserError
from ojd.models.delta import conversion
from ojd.models.delta.conversion import (
  Changed,
  ConvLayer,
  Layer,
  Rule,
  convolve,
  row,
)

Memory = Literal["forget", "sum", "reference"]
MEMORIES = get_args(Memory)
Block = Literal[1, 2, 4, 8]
BLOCKS = get_args(Block)
_FIRST_BIAS = 0.6


class Kept(NamedTuple):
  """Of the frame before."""

  x: jax.Array  # [B, H, W, I]; of `reference`, what the outputs have seen
  z: jax.Array  # [B, P, Q, O]
  pending: jax.Array  # [B, P, Q, 1] float32, changes not yet computed; `sum`


class Gate(NamedTuple):
  """Decides where outputs are computed, made by a factory."""

  begin: Callable[[jax.Array, Layer], Any]  # (rng_key, layer) -> weights
  # (layer, |r| [B, H, W, I]) -> [B, P, Q, 1], open above 0.
  logit: Callable[[Layer, jax.Array], jax.Array]
  eps: float | None  # of a norm: the logit is the norm less this; None: learned
  macs: Callable[[ConvLayer], int]
  # (layer) -> what a norm is multiplied by.
  gain: Callable[[Layer], jax.Array] = lambda layer: jnp.float32(1)


def by_norm(
  eps: float = 0.1, *, of_output: bool = False, by_height: bool = False
) -> Gate:
  """Open where the mean absolute change in an output's window is above eps.

  It has no parameters, and is open everywhere in training.

  Args:
    eps: the threshold; 0 lets every change through.
    of_output: whether the change is weighed by the kernel's mean absolute
      weight, so that eps is one of outputs.
    by_height: divides by the frame's height instead of the channels, as
      the authors' code does.
  """
  if not eps >= 0:
    raise UserError(f"eps={eps}: at least 0")

  def gain(layer):
    conv = layer.conv
    size = conv.shape_in[0] if by_height else conv.shape_in[-1]
    scale = jnp.mean(jnp.abs(layer.kernel)) if of_output else 1.0
    return jnp.float32(scale / size)

  def logit(layer, change):
    total = jnp.sum(change.astype(jnp.float32), -1, keepdims=True)
    return gain(layer) * window_mean(total, layer.conv) - eps

  return Gate(lambda rng_key, layer: {}, logit, eps, lambda conv: 0, gain)


def by_gumbel() -> Gate:
  """Open where a convolution of the absolute change, to one channel, says so.

  In training a sample of it is, with the gradient of the soft one.
  """

  def begin(rng_key, layer):
    (kh, kw), num_in = layer.conv.kernel_size, layer.conv.shape_in[-1]
    init = jax.nn.initializers.glorot_uniform()
    kernel = init(rng_key, (kh, kw, num_in, 1), jnp.float32)
    return {"gate": kernel, "gate_bias": jnp.full((1,), _FIRST_BIAS)}

  def logit(layer, change):
    out = convolve(change, layer.weights["gate"], layer.conv)
    return (out + row(layer.weights["gate_bias"], out)).astype(jnp.float32)

  def macs(conv):
    return conv.macs // conv.shape_out[-1]

  return Gate(begin, logit, None, macs)


def window_mean(x: jax.Array, conv: ConvLayer) -> jax.Array:
  """Means over the windows of a convolution, zeros around; [B, P, Q, 1]."""
  num_taps = conv.kernel_size[0] * conv.kernel_size[1]
  ones = jnp.ones((*conv.kernel_size, 1, 1), x.dtype)
  return convolve(x, ones, conv) / num_taps


def skip(
  gate: Gate,
  *,
  memory: str = "forget",
  block: int = 1,
  bias_twice: bool = False,
) -> Rule:
  """The rule of Skip-Convolutions.

  Args:
    gate: decides.
    memory: what becomes of changes below the gate, of `MEMORIES`; other than
      `forget` for norms alone.
    block: side of the blocks of pixels that are open as one, of outputs (of
      inputs with `reference`).
    bias_twice: adds the bias to every output that is computed once more, as
      the authors' code does; of `forget` alone.
  """
  if memory not in MEMORIES:
    raise UserError(f"memory={memory}: one of {', '.join(MEMORIES)}")
  if block not in BLOCKS:
    raise UserError(f"block={block}: one of {', '.join(map(str, BLOCKS))}")
  if memory != "forget" and gate.eps is None:
    raise UserError(f"memory={memory}: of a gate by a norm alone")

  def keep(x, z, conv):
    pending = jnp.zeros((*z.shape[:-1], 1), jnp.float32)
    return Kept(x, z, pending)

  def decide(layer, logit, rng_key):
    """0 or 1, float32; with a gradient in training."""
    if rng_key is None:
      is_open = (logit > 0).astype(jnp.float32)
    elif gate.eps is not None:
      is_open = jnp.ones_like(logit)
    else:
      is_open = conversion.gumbel_sample(logit, rng_key, is_logistic=False)
    return by_blocks(is_open, block)

  def forget(layer, kept, x, rng_key):
    r = x - kept.x
    is_open = decide(layer, gate.logit(layer, jnp.abs(r)), rng_key)
    dz = convolve(r, layer.kernel, layer.conv)
    if bias_twice and layer.bias is not None:
      dz = dz + row(layer.bias, dz)
    z = kept.z + is_open.astype(x.dtype) * dz
    return Kept(x, z, kept.pending), is_open

  def add_up(layer, kept, x, rng_key):
    pending = kept.pending + gate.logit(layer, jnp.abs(x - kept.x)) + gate.eps
    is_open = decide(layer, pending - gate.eps, rng_key)
    z = convolve(x, layer.kernel, layer.conv)
    if layer.bias is not None:
      z = z + row(layer.bias, z)
    z = jnp.where(is_open > 0, z, kept.z)
    return Kept(x, z, jnp.where(is_open > 0, 0, pending)), is_open

  def refer(layer, kept, x, rng_key):
    r = x - kept.x
    total = jnp.sum(jnp.abs(r).astype(jnp.float32), -1, keepdims=True)
    is_sent = decide(layer, gate.gain(layer) * total - gate.eps, rng_key)
    sent = is_sent.astype(x.dtype) * r
    dz = convolve(sent, layer.kernel, layer.conv)
    kept = Kept(kept.x + sent, kept.z + dz, kept.pending)
    # Those that read any of it are computed.
    return kept, (window_mean(is_sent, layer.conv) > 0).astype(jnp.float32)

  step = dict(zip(MEMORIES, (forget, add_up, refer), strict=True))[memory]

  def change(layer, kept, x, rng_key):
    kept, is_open = step(layer, kept, x, rng_key)
    share = jnp.mean(is_open)
    work = share * layer.conv.macs + gate.macs(layer.conv)
    return Changed(kept.z, kept, work / 1e9, {"open": share})

  return Rule(
    begin=gate.begin,
    refit=lambda layer: layer.weights,
    keep=keep,
    change=change,
  )


def by_blocks(is_open: jax.Array, side: int) -> jax.Array:
  """All pixels of a block open where one of them is, [B, P, Q, 1]."""
  if side == 1:
    return is_open
  batch, rows, columns, _ = is_open.shape
  fill = [(0, 0), (0, -rows % side), (0, -columns % side), (0, 0)]
  padded = jnp.pad(is_open, fill)
  blocks = padded.reshape(
    batch, padded.shape[1] // side, side, padded.shape[2] // side, side, 1
  )
  most = blocks.max((2, 4))
  whole = jnp.repeat(jnp.repeat(most, side, 1), side, 2)
  return whole[:, :rows, :columns]

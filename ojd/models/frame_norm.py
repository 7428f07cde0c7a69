"""Batch norm by the statistics of each frame, and the ReLU behind it.

There is no running average, in training or after: a student's state is its
parameters. Nothing in the network reads a norm but through a ReLU, so that both
are one step with one gradient: what autodiff derives takes half as long again.
The fences keep XLA's CPU back end from computing a step once more
in every step that reads it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ojd import fences

EPSILON = 1e-5

_AREA = (-3, -2)


class Held(NamedTuple):
  """What a norm did to a frame, to be done to the frames after it."""

  gain: jax.Array  # [B, 1, 1, I]
  offset: jax.Array  # [B, 1, 1, I]


def relu_held(x: jax.Array, held: Held) -> jax.Array:
  """`norm_relu` by the statistics of an earlier frame."""
  return jax.nn.relu(_wide(x) * held.gain + held.offset).astype(x.dtype)


def _wide(x):
  """For what is summed up over a frame: half precision would not do."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@jax.custom_vjp
def norm_relu(
  x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, Held]:
  """Zero mean and unit variance over a frame, scaled, moved, cut off below 0.

  Args:
    x: [B, H, W, I] float; bfloat16 is widened for the statistics.
    scale: [I] float32 or wider.
    bias: [I].

  Returns:
    The like of x; and what was done to it, through which no gradient flows.
  """
  return _forward(x, scale, bias)[0]


def _forward(x, scale, bias):
  wide = _wide(x)
  mean = fences.on_cpu(jnp.mean(wide, axis=_AREA, keepdims=True))
  variance = jnp.mean(jnp.square(wide - mean), axis=_AREA, keepdims=True)
  rate = lax.rsqrt(variance + EPSILON)
  gain = _row(scale, x) * rate
  held = Held(*fences.on_cpu((gain, _row(bias, x) - mean * gain)))
  return (relu_held(x, held), held), (x, mean, rate, held)


def _row(values, x):
  return values.reshape((1,) * (x.ndim - 1) + (-1,))


def _backward(residuals, gradients):
  x, mean, rate, (gain, offset) = residuals
  g, _ = gradients
  num_pixels = x.shape[-3] * x.shape[-2]
  dtype, x = x.dtype, _wide(x)
  g = fences.on_cpu(
    jnp.where(x * gain + offset > 0, _wide(fences.on_cpu(g)), 0)
  )
  total = jnp.sum(g, axis=_AREA, keepdims=True)
  # Of the gradient with what the scale multiplies.
  product = rate * jnp.sum(g * (x - mean), axis=_AREA, keepdims=True)
  slope, level = fences.on_cpu(
    (gain * rate * product / num_pixels, gain * total / num_pixels)
  )
  in_x = gain * g - (x - mean) * slope - level
  num_channels = x.shape[-1]
  per_channel = lambda y: jnp.sum(y.reshape(-1, num_channels), axis=0)
  return (
    fences.on_cpu(in_x.astype(dtype)),
    per_channel(product),
    per_channel(total),
  )


norm_relu.defvjp(_forward, _backward)

"""Batch norm by the statistics of each frame, and the ReLU behind it.

There is no running average, in training or after: a student's state is its
parameters. Where a network reads a norm through a ReLU alone, both are one step
with one gradient: what autodiff derives takes half as long again.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ojd import xla

EPSILON = 1e-5

_AREA = (-3, -2)


class Limits(NamedTuple):
  """Where a norm's values are clipped; None: nowhere."""

  low: float | None
  high: float | None


LINEAR, RELU, RELU6 = Limits(None, None), Limits(0.0, None), Limits(0.0, 6.0)


class Held(NamedTuple):
  """The gain and offset of a norm on a frame, to reuse on later frames."""

  gain: jax.Array  # [B, 1, 1, I]
  offset: jax.Array  # [B, 1, 1, I]


def held_norm(x: jax.Array, held: Held, limits: Limits = RELU) -> jax.Array:
  """`norm` by the statistics of an earlier frame."""
  return _clip(wide(x) * held.gain + held.offset, limits).astype(x.dtype)


def wide(x):
  """At least in single precision, for sums over a frame."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _clip(x: jax.Array, limits: Limits) -> jax.Array:
  """Values outside of the limits become the limits."""
  if limits.low is not None:
    x = jnp.maximum(x, limits.low)
  return x if limits.high is None else jnp.minimum(x, limits.high)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, limits: Limits = RELU
) -> tuple[jax.Array, Held]:
  """Zero mean and unit variance over a frame, then scale, bias and clipping.

      y = scale (x - mean) / sqrt(variance + epsilon) + bias

  Args:
    x: [B, H, W, I] float; bfloat16 is widened for the statistics.
    scale: [I] float32 or wider.
    bias: [I].
    limits: of the output.

  Returns:
    y, like x; and its gain and offset, through which no gradient flows.
  """
  return _forward(x, scale, bias, limits)[0]


def _forward(x, scale, bias, limits):
  exact = wide(x)
  mean = xla.cpu_barrier(jnp.mean(exact, axis=_AREA, keepdims=True))
  variance = jnp.mean(jnp.square(exact - mean), axis=_AREA, keepdims=True)
  rate = lax.rsqrt(variance + EPSILON)
  gain = _row(scale, x) * rate
  held = Held(*xla.cpu_barrier((gain, _row(bias, x) - mean * gain)))
  return (held_norm(x, held, limits), held), (x, mean, rate, held)


def _row(values, x):
  return values.reshape((1,) * (x.ndim - 1) + (-1,))


def _backward(limits, residuals, gradients):
  x, mean, rate, (gain, offset) = residuals
  g, _ = gradients
  num_pixels = x.shape[-3] * x.shape[-2]
  dtype, x = x.dtype, wide(x)
  g = wide(xla.cpu_barrier(g))
  g = xla.cpu_barrier(_where_open(x * gain + offset, g, limits))
  total = jnp.sum(g, axis=_AREA, keepdims=True)
  # Of the gradient with what the scale multiplies.
  product = rate * jnp.sum(g * (x - mean), axis=_AREA, keepdims=True)
  slope, level = xla.cpu_barrier(
    (gain * rate * product / num_pixels, gain * total / num_pixels)
  )
  in_x = gain * g - (x - mean) * slope - level
  num_channels = x.shape[-1]
  per_channel = lambda y: jnp.sum(y.reshape(-1, num_channels), axis=0)
  in_x = xla.cpu_barrier(in_x.astype(dtype))
  return in_x, per_channel(product), per_channel(total)


def _where_open(y, g, limits):
  """The gradient of `_clip`: 0 where y was clipped."""
  if limits.low is not None:
    g = jnp.where(y > limits.low, g, 0)
  return g if limits.high is None else jnp.where(y < limits.high, g, 0)


norm.defvjp(_forward, _backward)

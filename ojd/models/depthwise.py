"""Depthwise convolution: one kernel for each channel.

XLA's CPU back end has no fast grouped convolutions (96x160x32, one core: 9.9 ms
where shifted multiply-adds take 0.2 and torch 0.5), nor fast gradients of them.
Accelerators have both.

Letters: B batch, H, W height and width in, P, Q height and width out, I
channels.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax

# The kernel gradient is summed over bands of so many bytes of input, which stay
# in the cache (360x640x32, one core: 21 ms against 118 ms in one go).
_BAND_BYTES = 256 << 10


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv2d(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> jax.Array:
  """Convolves each channel with half a kernel of zeros around the image.

  Args:
    x: [B, H, W, I] float.
    kernel: [KH, KW, 1, I], odd sides.
    stride: of both axes.
    dilation: pixels from one tap of the kernel to the next, on both axes.

  Returns:
    [B, P, Q, I] with P = ceil(H / stride), Q = ceil(W / stride).
  """
  static = dict(stride=stride, dilation=dilation)
  return lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(by_taps, **static),
    default=functools.partial(grouped, **static),
  )


def grouped(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> jax.Array:
  """`depthwise_conv2d` as a grouped convolution, for accelerators."""
  padding = [(k // 2 * dilation,) * 2 for k in kernel.shape[:2]]
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    rhs_dilation=(dilation, dilation),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[-1],
  )


def by_taps(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> jax.Array:
  """`depthwise_conv2d` as a sum over the taps of the shifted image."""
  out = [-(-size // stride) for size in x.shape[1:3]]
  padded = lax.optimization_barrier(_padded(x, kernel.shape, dilation))
  windows = _windows(padded, kernel.shape, out, stride, dilation)
  rows = kernel.reshape(-1, 1, 1, 1, x.shape[-1])
  terms = [window * row for window, row in zip(windows, rows, strict=True)]
  return functools.reduce(jnp.add, terms)


def _padded(x, kernel_shape, dilation):
  kh, kw = (k // 2 * dilation for k in kernel_shape[:2])
  return jnp.pad(x, ((0, 0), (kh, kh), (kw, kw), (0, 0)))


def _windows(padded, kernel_shape, out, stride, dilation):
  """The pixels that each tap reads: [B, *out, I], row by row of the kernel."""
  b, _, _, num_channels = padded.shape
  for i, j in itertools.product(*map(range, kernel_shape[:2])):
    start = (0, i * dilation, j * dilation, 0)
    p, q = ((n - 1) * stride + 1 for n in out)
    end = (b, start[1] + p, start[2] + q, num_channels)
    yield lax.slice(padded, start, end, (1, stride, stride, 1))


def _depthwise_forward(x, kernel, stride, dilation):
  return depthwise_conv2d(x, kernel, stride, dilation), (x, kernel)


def _depthwise_backward(stride, dilation, residuals, g):
  static = dict(stride=stride, dilation=dilation)

  def derived(x, kernel, g):
    primal = functools.partial(grouped, **static)
    return jax.vjp(primal, x, kernel)[1](g)

  def as_taps(x, kernel, g):
    primal = lambda x: by_taps(x, kernel, **static)
    (in_x,) = jax.linear_transpose(primal, x)(g)
    return in_x, kernel_gradient(x, kernel.shape, g, **static)

  return lax.platform_dependent(*residuals, g, cpu=as_taps, default=derived)


depthwise_conv2d.defvjp(_depthwise_forward, _depthwise_backward)


def kernel_gradient(
  x: jax.Array,
  kernel_shape: tuple[int, ...],
  g: jax.Array,
  stride: int,
  dilation: int,
) -> jax.Array:
  """Products of input and output gradient, summed band by band of rows.

  Args:
    x: [B, H, W, I].
    kernel_shape: KH, KW, 1, I.
    g: [B, P, Q, I], the gradient with the output.
    stride: of both axes.
    dilation: of the kernel.

  Returns:
    [KH, KW, 1, I].
  """
  num_rows, num_columns = g.shape[1:3]
  padded = _padded(x, kernel_shape, dilation)
  row_bytes = stride * padded[:, 0].size * padded.dtype.itemsize
  rows = max(1, min(num_rows, _BAND_BYTES // row_bytes))
  num_bands = -(-num_rows // rows)
  # Rows of zero gradient fill the last band and add nothing.
  missing = num_bands * rows - num_rows
  fill = lambda x, n: jnp.pad(x, ((0, 0), (0, n), (0, 0), (0, 0)))
  padded, g = fill(padded, missing * stride), fill(g, missing)
  band_rows = (rows - 1) * stride + 1 + (kernel_shape[0] - 1) * dilation

  def add_band(i, total):
    x_band = lax.dynamic_slice_in_dim(padded, i * rows * stride, band_rows, 1)
    g_band = lax.dynamic_slice_in_dim(g, i * rows, rows, 1)
    out = (rows, num_columns)
    windows = _windows(x_band, kernel_shape, out, stride, dilation)
    taps = [jnp.sum(w * g_band, axis=(0, 1, 2)) for w in windows]
    return total + jnp.stack(taps).reshape(kernel_shape)

  zeros = jnp.zeros(kernel_shape, x.dtype)
  return lax.fori_loop(0, num_bands, add_band, zeros)

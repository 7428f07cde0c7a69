"""Convolution with half a kernel of zeros around it, fast inside `lax` loops.

XLA's CPU back end has fast kernels for forward convolutions everywhere, but for
the gradients that autodiff derives only outside of loops: in a `while_loop` one
of them takes up to sixty times as long. So the gradients are written here as
forward convolutions and matrix products. Accelerators keep the derived ones.

Nor has it fast grouped convolutions (96x160x32, one core: 9.9 ms where shifted
multiply-adds take 0.2 and torch 0.5), or fast gradients of them: a depthwise
convolution is a sum over the taps of its kernel.

Letters: B batch, H, W height and width in, P, Q height and width out, I, O
channels in and out.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax

# Above this many bytes of input the kernel gradient is summed band by band, so
# that a band stays in the cache (360x640x32: 31 ms against 61 ms in one go).
_MAX_BYTES_UNBANDED = 8 << 20
_BAND_BYTES = 512 << 10
# Of a depthwise kernel's gradient, always summed by bands (360x640x32, one
# core: 21 ms against 118 ms in one go).
_DEPTHWISE_BAND_BYTES = 256 << 10

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _convolve(x, kernel, stride, padding):
  return lax.conv_general_dilated(
    x, kernel, _both(stride), padding, dimension_numbers=_DIMENSIONS
  )


def _both(stride):
  """The strides of both axes, of one number or two."""
  return (stride, stride) if isinstance(stride, int) else stride


def _one_by_one(fn, can_fold=True):
  """`fn(x, kernel)` whose `vmap` on the CPU loops over the kernels.

  Many kernels at once are a grouped convolution, for which XLA's CPU back end
  has no fast path. One kernel for many inputs is a larger batch, if `fn` treats
  the images of a batch independently.
  """

  @jax.custom_batching.custom_vmap
  def call(x, kernel):
    return fn(x, kernel)

  @call.def_vmap
  def rule(axis_size, in_batched, x, kernel):
    if can_fold and not in_batched[1]:
      folded = fn(x.reshape(-1, *x.shape[2:]), kernel)
      return folded.reshape(axis_size, -1, *folded.shape[1:]), True
    axes = tuple(0 if is_batched else None for is_batched in in_batched)

    def in_turn(x, kernel):
      pick = lambda i, y, is_batched: y[i] if is_batched else y
      turn = lambda i: fn(
        *map(functools.partial(pick, i), (x, kernel), in_batched)
      )
      return lax.map(turn, jnp.arange(axis_size))

    at_once = jax.vmap(fn, axes)
    return lax.platform_dependent(x, kernel, cpu=in_turn, default=at_once), True

  return call


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d(
  x: jax.Array, kernel: jax.Array, stride: int | tuple[int, int]
) -> jax.Array:
  """Convolves with half a kernel of zeros around the image, then strides.

  Unlike "SAME", the padding does not depend on the stride or the size, so a
  3x3 kernel of stride 2 is centred on the even pixels.

  Args:
    x: [B, H, W, I] float.
    kernel: [KH, KW, I, O], odd sides.
    stride: of both axes, or of each.

  Returns:
    [B, P, Q, O] with P = ceil(H / stride), Q = ceil(W / stride).
  """
  padding = _half(kernel.shape)
  convolve = lambda x, kernel: _convolve(x, kernel, stride, padding)
  return _one_by_one(convolve)(x, kernel)


def _half(kernel_shape):
  """Zeros before and after each axis: half the kernel."""
  return tuple((k // 2, k // 2) for k in kernel_shape[:2])


def _conv2d_forward(x, kernel, stride):
  return conv2d(x, kernel, stride), (x, kernel)


def _conv2d_backward(stride, residuals, g):
  x, kernel = residuals

  def derived(x, kernel, g):
    padding = _half(kernel.shape)
    primal = lambda x, kernel: _convolve(x, kernel, stride, padding)
    return jax.vjp(primal, x, kernel)[1](g)

  def as_forward(x, kernel, g):
    return (
      _input_gradient(x.shape, kernel, g, stride),
      _kernel_gradient(x, kernel.shape, g, stride),
    )

  return lax.platform_dependent(x, kernel, g, cpu=as_forward, default=derived)


conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def _input_gradient(x_shape, kernel, g, stride):
  """Convolves the dilated output gradient with the flipped kernel."""
  padding, strides = [], _both(stride)
  for size, k, out, step in zip(
    x_shape[1:3], kernel.shape[:2], g.shape[1:3], strides, strict=True
  ):
    before = k - 1 - k // 2
    dilated = (out - 1) * step + 1
    padding.append((before, size + k - 1 - dilated - before))
  transposed = lambda g, kernel: lax.conv_general_dilated(
    g,
    kernel[::-1, ::-1].swapaxes(2, 3),
    window_strides=(1, 1),
    padding=padding,
    lhs_dilation=strides,
    dimension_numbers=_DIMENSIONS,
  )
  return _one_by_one(transposed)(g, kernel)


def _kernel_gradient(x, kernel_shape, g, stride):
  """Correlates input and output gradient; [KH, KW, I, O]."""
  kh, kw = kernel_shape[:2]
  p, q = g.shape[1:3]
  strides = down, across = _both(stride)
  (top, _), (left, _) = _half(kernel_shape)
  # Exactly the pixels that the taps read.
  bottom = (p - 1) * down + kh - x.shape[1] - top
  right = (q - 1) * across + kw - x.shape[2] - left
  zero = jnp.zeros((), x.dtype)
  padded = lax.pad(
    x, zero, ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0))
  )
  if max(strides) > 1 or kh * kw <= 3:
    return _kernel_gradient_by_taps(padded, kernel_shape, g, strides)
  if x.size * x.dtype.itemsize <= _MAX_BYTES_UNBANDED:
    return _correlate(padded, g)
  return _kernel_gradient_by_bands(padded, kernel_shape, g)


def _kernel_gradient_by_taps(padded, kernel_shape, g, strides):
  """One matrix product per tap; best where there are few or they stride."""
  kh, kw, num_in, num_out = kernel_shape
  down, across = strides
  b, p, q = g.shape[:3]
  g = g.reshape(-1, num_out)

  def tap(i, j):
    end = (b, i + (p - 1) * down + 1, j + (q - 1) * across + 1, num_in)
    window = lax.slice(padded, (0, i, j, 0), end, (1, down, across, 1))
    return window.reshape(-1, num_in).T @ g

  taps = [tap(i, j) for i in range(kh) for j in range(kw)]
  return jnp.stack(taps).reshape(kernel_shape)


def _correlate(padded, g):
  """The output gradient as the kernel of a forward convolution, stride 1."""
  correlate = lambda x, g: lax.conv_general_dilated(
    x.transpose(3, 1, 2, 0),
    g.transpose(1, 2, 0, 3),
    window_strides=(1, 1),
    padding="VALID",
    dimension_numbers=_DIMENSIONS,
  ).transpose(1, 2, 0, 3)
  return _one_by_one(correlate, can_fold=False)(padded, g)


def _kernel_gradient_by_bands(padded, kernel_shape, g):
  """`_correlate` over horizontal bands, summed."""
  halo = kernel_shape[0] - 1
  p = g.shape[1]
  row_bytes = padded[:, 0].size * padded.dtype.itemsize
  rows = max(1, min(p, _BAND_BYTES // row_bytes))
  num_bands = -(-p // rows)
  # Rows of zero gradient fill the last band and add nothing.
  missing = num_bands * rows - p
  fill = ((0, 0), (0, missing), (0, 0), (0, 0))
  padded, g = jnp.pad(padded, fill), jnp.pad(g, fill)

  def add_band(i, total):
    x_band = lax.dynamic_slice_in_dim(padded, i * rows, rows + halo, axis=1)
    g_band = lax.dynamic_slice_in_dim(g, i * rows, rows, axis=1)
    return total + _correlate(x_band, g_band)

  zeros = jnp.zeros(kernel_shape, padded.dtype)
  return lax.fori_loop(0, num_bands, add_band, zeros)


def dilated_conv2d(x: jax.Array, kernel: jax.Array, rate: int) -> jax.Array:
  """Convolves with a kernel whose taps are `rate` pixels apart.

  A sum over the taps of the kernel, each a matrix product with the pixels that
  it reads inside of the image: those outside, which at large rates are most,
  cost nothing. The derived gradients are matrix products too, fast in loops.

  Args:
    x: [B, H, W, I] float.
    kernel: [KH, KW, I, O], odd sides.
    rate: of both axes.

  Returns:
    [B, H, W, O], as with half a kernel of zeros around the image.
  """
  kh, kw = kernel.shape[:2]
  height, width = x.shape[1:3]
  total = None
  for i, j in itertools.product(range(kh), range(kw)):
    down, right = (i - kh // 2) * rate, (j - kw // 2) * rate
    if abs(down) >= height or abs(right) >= width:
      continue
    (top, bottom), (left, end) = _inside(down, height), _inside(right, width)
    read = x[:, top + down : bottom + down, left + right : end + right]
    margins = ((0, 0), (top, height - bottom), (left, width - end), (0, 0))
    term = jnp.pad(jnp.tensordot(read, kernel[i, j], 1), margins)
    total = term if total is None else total + term
  return total


def _inside(shift, size):
  """The outputs along an axis whose input, `shift` away, is in the image."""
  return max(0, -shift), min(size, size - shift)


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
  rows = max(1, min(num_rows, _DEPTHWISE_BAND_BYTES // row_bytes))
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

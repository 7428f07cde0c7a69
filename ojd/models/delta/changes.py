"""Delta Distillation (Habibian et al., 2021): students g of a layer's change.

    z_t = z_key + g(x_t - x_key)

A convolution without its bias is linear, so g reads the difference alone, and
errors do not add up from frame to frame. `same` has the layer's own kernel,
`full` a kernel of its size, and `pair` two separable ones in sequence.

A kernel [KH, KW, I, O] is a matrix of (KH, I) rows and (KW, O) columns; a
column of taps to r channels and a row of taps behind it are its factors. By the
theorem of Eckart and Young the truncated singular value decomposition is the
nearest of all pairs of r channels.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from ojd.errors import UserError
from ojd.models import convolution, norm
from ojd.models.delta import conversion
from ojd.models.delta.conversion import (
  Changed,
  ConvLayer,
  Layer,
  Rule,
  convolve,
  row,
)
from ojd.models.student import Student

Policy = Literal["out", "min"]
POLICIES = get_args(Policy)


class Kept(NamedTuple):
  """Of the key frame."""

  x: jax.Array  # [B, H, W, I]
  z: jax.Array  # [B, P, Q, O], the bias included


class Change(NamedTuple):
  """A student g, made by a factory."""

  begin: Callable[[Layer], dict[str, Any]]  # weights of a layer
  apply: Callable[[Layer, jax.Array], jax.Array]  # dx -> dz
  macs: Callable[[ConvLayer], int]
  # The weights after the layer was trained, from those before; None: `begin`.
  refit: Callable[[Layer], dict[str, Any]] | None = None


def same() -> Change:
  """The layer itself: exact after any training, and no cheaper."""
  return Change(
    begin=lambda layer: {},
    apply=lambda layer, dx: convolve(dx, layer.kernel, layer.conv),
    macs=lambda conv: conv.macs,
  )


def full(*, bias_twice: bool = False) -> Change:
  """The uncompressed g: a convolution like the layer's, with its own weights.

  Args:
    bias_twice: whether g has the layer's bias as well, as in the authors'
      code, which adds it twice on frames between key frames.
  """

  def begin(layer):
    return {"kernel": layer.kernel, **_bias(layer, bias_twice)}

  def apply(layer, dx):
    dz = convolve(dx, layer.weights["kernel"], layer.conv)
    return _add_bias(dz, layer.weights)

  return Change(begin, apply, lambda conv: conv.macs)


def pair(
  *, gamma: int = 4, policy: str = "out", bias_twice: bool = False
) -> Change:
  """The compressed g: a column of taps to r channels, then a row of taps.

  It begins as the best such pair, `split_kernel`.

  Args:
    gamma: how many times fewer r is than the layer's channels.
    policy: those of its output, `out`, or the fewer of both sides, `min`.
    bias_twice: as for `full`.
  """
  check_gamma(gamma, policy)

  def begin(layer):
    rank = rank_of(layer.conv, gamma, policy)
    first, second = split_kernel(layer.kernel, rank)
    return {"first": first, "second": second, **_bias(layer, bias_twice)}

  def apply(layer, dx):
    dz = apply_pair(layer.weights, dx, layer.conv)
    return _add_bias(dz, layer.weights)

  def macs(conv):
    return pair_macs(conv, rank_of(conv, gamma, policy))

  def refit(layer):
    pair = (layer.weights[name] for name in _PAIR)
    first, second = refine_pair(layer.kernel, *pair)
    return {"first": first, "second": second, **_bias(layer, bias_twice)}

  return Change(begin, apply, macs, refit)


def check_gamma(
  gamma: int, policy: str, convs: Sequence[ConvLayer] = ()
) -> None:
  """Raises a UserError unless `pair` takes them and compresses a layer.

  Args:
    gamma: as for `pair`.
    policy: likewise.
    convs: the layers that are to be compressed, if they are known.
  """
  if policy not in POLICIES:
    raise UserError(f"policy={policy}: one of {', '.join(POLICIES)}")
  if gamma < 1:
    raise UserError(f"gamma={gamma}: at least 1")
  most = max((_width(conv, policy) for conv in convs), default=gamma)
  if gamma > most:
    raise UserError(
      f"gamma={gamma}: no layer has more than {most} channels to divide"
    )


def _width(conv, policy):
  num_in, num_out = _channels(conv)
  return num_out if policy == "out" else min(num_in, num_out)


def rank_of(conv: ConvLayer, gamma: int, policy: str) -> int:
  """r of a layer; at most what makes the pair exact.

  As published, a layer of fewer channels than gamma keeps them.
  """
  (kh, kw), num_in, num_out = conv.kernel_size, *_channels(conv)
  if policy == "out":
    rank = num_out // gamma if num_out > gamma else num_out
  else:
    least = min(num_in, num_out)
    rank = least // gamma if least >= gamma else least
  return min(rank, kh * num_in, kw * num_out)


def _channels(conv):
  return conv.shape_in[-1], conv.shape_out[-1]


def apply_pair(weights: Any, dx: jax.Array, conv: ConvLayer) -> jax.Array:
  """Both kernels of a pair, each with the stride of its own axis."""
  first, second = (weights[name].astype(dx.dtype) for name in _PAIR)
  if conv.dilation > 1:
    dx = convolution.dilated_conv2d(dx, first, conv.dilation)
    return convolution.dilated_conv2d(dx, second, conv.dilation)
  dx = convolution.conv2d(dx, first, (conv.stride, 1))
  return convolution.conv2d(dx, second, (1, conv.stride))


_PAIR = ("first", "second")


def pair_macs(conv: ConvLayer, rank: int) -> int:
  """Of both kernels; between them only the rows have been strided over."""
  (kh, kw), (num_in, num_out) = conv.kernel_size, _channels(conv)
  (_, width, _), (rows, columns, _) = conv.shape_in, conv.shape_out
  return rank * rows * (kh * num_in * width + kw * num_out * columns)


def saves(change: Change, conv: ConvLayer) -> float:
  """The share of a layer's work that `change` saves; below 0: it adds."""
  # On a frame that strides divide: the choice must not depend on the size.
  side = 8 * conv.stride
  conv = conv._replace(
    shape_in=(side, side, conv.shape_in[-1]),
    shape_out=(8, 8, conv.shape_out[-1]),
  )
  return 1 - change.macs(conv) / conv.macs


def where_it_saves(change: Change) -> Callable[[ConvLayer], Change | None]:
  """`change` where it saves work, elsewhere None.

  A bottleneck of few channels may cost more than the layer that it replaces.
  """
  return lambda conv: change if saves(change, conv) > 0 else None


def _bias(layer, bias_twice):
  has = bias_twice and layer.bias is not None
  return {"bias": layer.bias} if has else {}


def _add_bias(dz, weights):
  return dz + row(weights["bias"], dz) if "bias" in weights else dz


def of_weights(weights: Any) -> Change:
  """`full` or `pair`, of as many channels as the weights have."""
  if "first" not in weights:
    return full(bias_twice="bias" in weights)
  rank = weights["first"].shape[-1]
  like = pair(bias_twice="bias" in weights)

  def begin(layer):
    first, second = split_kernel(layer.kernel, rank)
    return {**like.begin(layer), "first": first, "second": second}

  macs = lambda conv: pair_macs(conv, rank)
  return like._replace(begin=begin, macs=macs)


def from_key(change: Change) -> Rule:
  """The rule of Delta Distillation around a g."""

  def move(layer, kept, x, rng_key):
    del rng_key  # nothing is drawn
    dz = change.apply(layer, x - kept.x)
    gmac = change.macs(layer.conv) / 1e9
    return Changed(kept.z + dz, kept, jnp.float32(gmac), {"change": dz})

  return Rule(
    begin=lambda rng_key, layer: change.begin(layer),
    refit=change.refit or change.begin,
    keep=lambda x, z, conv: Kept(x, z),
    change=move,
  )


def rules(
  change_of: Callable[[ConvLayer], Change | None],
) -> Callable[[ConvLayer], Rule | None]:
  """`from_key` of each conv's change; None: the layer runs whole."""

  def rule_of(conv):
    change = change_of(conv)
    return change and from_key(change)

  return rule_of


def as_matrix(kernel: jax.Array) -> jax.Array:
  """[KH, KW, I, O] -> [KH * I, KW * O]."""
  kh, kw, num_in, num_out = kernel.shape
  return kernel.transpose(0, 2, 1, 3).reshape(kh * num_in, kw * num_out)


def split_kernel(kernel: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
  """The best pair of `rank` channels between: [KH, 1, I, r], [1, KW, r, O].

  Args:
    kernel: [KH, KW, I, O] float.
    rank: r, at most min(KH * I, KW * O).
  """
  matrix = norm.wide(as_matrix(kernel))
  u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
  root = jnp.sqrt(s[:rank])
  left, right = u[:, :rank] * root[None], root[:, None] * vt[:rank]
  return _as_kernels(left, right, kernel)


def refine_pair(
  kernel: jax.Array, first: jax.Array, second: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """A pair nearer to the kernel, by least squares for each half in turn.

  From the best pair of a kernel that has changed a little since it is as good
  as a decomposition, for a small part of the time.
  """
  matrix = norm.wide(as_matrix(kernel))
  rank = first.shape[-1]
  right = norm.wide(second[0]).transpose(1, 0, 2).reshape(rank, -1)
  left = _solve(right, matrix.T).T
  right = _solve(left.T, matrix)
  return _as_kernels(left, right, kernel)


def _solve(rows, target):
  """x of least |rows^T x - target|, of [r, n] and [n, m]: [r, m]."""
  gram = rows @ rows.T
  # Rows that are not needed may be nought: that must divide nothing.
  ridge = 1e-6 * jnp.trace(gram) / len(gram) + jnp.finfo(gram.dtype).tiny
  gram += ridge * jnp.eye(len(gram), dtype=gram.dtype)
  return jnp.linalg.solve(gram, rows @ target)


def _as_kernels(left, right, kernel):
  """Factors of the matrix as kernels, in the dtype of the kernel."""
  kh, kw, num_in, num_out = kernel.shape
  first = left.reshape(kh, 1, num_in, -1)
  second = right.reshape(-1, kw, num_out).transpose(1, 0, 2)[None]
  return first.astype(kernel.dtype), second.astype(kernel.dtype)


class Row(NamedTuple):
  """One convolution."""

  name: str
  key: int  # multiply-accumulates on a key frame
  delta: int  # and on a frame between


class Cost(NamedTuple):
  """Of a frame, multiply-accumulates of the convolutions / 1e9."""

  key: float
  delta: float
  amortised: float  # the mean over the frames from one key frame to the next


def work_table(
  student: Student,
  change: Change | Callable[[ConvLayer], Change | None],
  height: int,
  width: int,
) -> list[Row]:
  """A row a convolution, in the order they run; computes nothing.

  Args:
    student: of `from_linen`.
    change: of all converted layers, or of each; None: runs whole. While gates
      learn both of a layer's students run.
    height: H of the frame.
    width: W of the frame.
  """
  change_of = change if callable(change) else lambda conv: change
  found = conversion.trace(student, height, width)
  inner = {conv.path for conv in conversion.converted(found)}

  def delta(conv):
    change = change_of(conv) if conv.path in inner else None
    return change.macs(conv) if change else conv.macs

  return [Row(conv.name, conv.macs, delta(conv)) for conv in found]


def mean_cost(rows: list[Row], interval: int) -> Cost:
  """Of frames of which every interval-th is a key frame."""
  if interval < 1:
    raise UserError(f"--interval={interval}: at least 1")
  key, delta = (
    sum(getattr(row, name) for row in rows) / 1e9 for name in ("key", "delta")
  )
  return Cost(key, delta, (key + (interval - 1) * delta) / interval)

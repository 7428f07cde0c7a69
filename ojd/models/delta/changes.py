"""Delta Distillation's students g of a convolution's change.

    z_t = z_key + g(x_t - x_key)

A convolution without its bias is linear, so that g may be of the difference
alone, and nothing adds up from frame to frame. `same` has the layer's own
kernel, `full` one of its size, and `pair` two small ones behind each other.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ojd.errors import UserError
from ojd.models import convolution
from ojd.models.delta import svd
from ojd.models.delta.rules import Changed, Rule
from ojd.models.delta.sites import Layer, Site, convolve, row

POLICIES = ("out", "min")


class Kept(NamedTuple):
  """Of the key frame."""

  x: jax.Array  # [B, H, W, I]
  z: jax.Array  # [B, P, Q, O], the bias included


class Change(NamedTuple):
  """A student g, made by a factory."""

  begin: Callable[[Layer], dict[str, Any]]  # weights of a layer
  apply: Callable[[Layer, jax.Array], jax.Array]  # dx -> dz
  macs: Callable[[Site], int]
  # The weights once the layer has learnt, from those before; None: `begin`.
  follow: Callable[[Layer], dict[str, Any]] | None = None


def same() -> Change:
  """The layer itself: exact whatever it learns, and no cheaper."""
  return Change(
    begin=lambda layer: {},
    apply=lambda layer, dx: convolve(dx, layer.kernel, layer.site),
    macs=lambda site: site.macs,
  )


def full(*, bias_twice: bool = False) -> Change:
  """The uncompressed g: a convolution like the layer's, of weights of its own.

  Args:
    bias_twice: gives g the layer's bias as well, as the authors' code does,
      which adds it to every frame between key frames a second time.
  """

  def begin(layer):
    return {"kernel": layer.kernel, **_bias(layer, bias_twice)}

  def apply(layer, dx):
    dz = convolve(dx, layer.weights["kernel"], layer.site)
    return _add_bias(dz, layer.weights)

  return Change(begin, apply, lambda site: site.macs)


def pair(
  *, gamma: int = 4, policy: str = "out", bias_twice: bool = False
) -> Change:
  """The compressed g: a column of taps to r channels, then a row of taps.

  It begins as the best that such a pair can be (`svd.split`).

  Args:
    gamma: how many times fewer r is than the layer's channels.
    policy: those of its output, `out`, or the fewer of both sides, `min`.
    bias_twice: as for `full`.
  """
  check_gamma(gamma, policy)

  def begin(layer):
    rank = rank_of(layer.site, gamma, policy)
    first, second = svd.split(layer.kernel, rank)
    return {"first": first, "second": second, **_bias(layer, bias_twice)}

  def apply(layer, dx):
    dz = apply_pair(layer.weights, dx, layer.site)
    return _add_bias(dz, layer.weights)

  def macs(site):
    return pair_macs(site, rank_of(site, gamma, policy))

  def follow(layer):
    pair = (layer.weights[name] for name in _PAIR)
    first, second = svd.refine(layer.kernel, *pair)
    return {"first": first, "second": second, **_bias(layer, bias_twice)}

  return Change(begin, apply, macs, follow)


def check_gamma(gamma: int, policy: str, sites: Sequence[Site] = ()) -> None:
  """Raises a UserError unless `pair` takes them, and makes something less.

  Args:
    gamma: as for `pair`.
    policy: likewise.
    sites: the layers that are to be compressed, if they are known.
  """
  if policy not in POLICIES:
    raise UserError(f"--policy={policy}: one of {', '.join(POLICIES)}")
  if gamma < 1:
    raise UserError(f"--gamma={gamma}: at least 1")
  most = max((_width(site, policy) for site in sites), default=gamma)
  if gamma > most:
    raise UserError(
      f"--gamma={gamma}: no layer has more than {most} channels to divide"
    )


def _width(site, policy):
  num_in, num_out = _channels(site)
  return num_out if policy == "out" else min(num_in, num_out)


def rank_of(site: Site, gamma: int, policy: str) -> int:
  """r of a layer; never more than makes the pair exact.

  A layer of fewer channels than gamma keeps them, as published.
  """
  (kh, kw), num_in, num_out = site.kernel_size, *_channels(site)
  if policy == "out":
    rank = num_out // gamma if num_out > gamma else num_out
  else:
    least = min(num_in, num_out)
    rank = least // gamma if least >= gamma else least
  return min(rank, kh * num_in, kw * num_out)


def _channels(site):
  return site.shape_in[-1], site.shape_out[-1]


def apply_pair(weights: Any, dx: jax.Array, site: Site) -> jax.Array:
  """Both kernels of a pair, each with the stride of its own axis."""
  first, second = (weights[name].astype(dx.dtype) for name in _PAIR)
  if site.dilation > 1:
    dx = convolution.dilated_conv2d(dx, first, site.dilation)
    return convolution.dilated_conv2d(dx, second, site.dilation)
  dx = convolution.conv2d(dx, first, (site.stride, 1))
  return convolution.conv2d(dx, second, (1, site.stride))


_PAIR = ("first", "second")


def pair_macs(site: Site, rank: int) -> int:
  """Of both kernels; between them only the rows have been strided over."""
  (kh, kw), (num_in, num_out) = site.kernel_size, _channels(site)
  (_, width, _), (rows, columns, _) = site.shape_in, site.shape_out
  return rank * rows * (kh * num_in * width + kw * num_out * columns)


def saves(change: Change, site: Site) -> float:
  """The share of a layer's work that `change` leaves out; below 0: it adds."""
  # On a frame that strides divide: a choice must not hang on the size.
  side = 8 * site.stride
  site = site._replace(
    shape_in=(side, side, site.shape_in[-1]),
    shape_out=(8, 8, site.shape_out[-1]),
  )
  return 1 - change.macs(site) / site.macs


def where_it_saves(
  change: Change, least: float = 0.0
) -> Callable[[Site], Change | None]:
  """`change` where it saves more than `least`, elsewhere nothing: None.

  A bottleneck of few channels may cost more than what it stands in for, and
  the difference and the sum around it are work as well.
  """
  return lambda site: change if saves(change, site) > least else None


def _bias(layer, bias_twice):
  has = bias_twice and layer.bias is not None
  return {"bias": layer.bias} if has else {}


def _add_bias(dz, weights):
  return dz + row(weights["bias"], dz) if "bias" in weights else dz


def from_key(change: Change) -> Rule:
  """The rule of Delta Distillation around a g."""

  def move(layer, kept, x, rng_key):
    del rng_key  # nothing is drawn
    dz = change.apply(layer, x - kept.x)
    gmac = change.macs(layer.site) / 1e9
    return Changed(kept.z + dz, kept, jnp.float32(gmac), {"change": dz})

  return Rule(
    begin=lambda rng_key, layer: change.begin(layer),
    follow=change.follow or change.begin,
    keep=lambda x, z, site: Kept(x, z),
    change=move,
  )


def rules(
  change_of: Callable[[Site], Change | None],
) -> Callable[[Site], Rule | None]:
  """`from_key` of each site's change; None: the layer runs whole."""

  def rule_of(site):
    change = change_of(site)
    return change and from_key(change)

  return rule_of

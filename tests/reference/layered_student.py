"""A student with a layer of each part, and key frames to teach it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ojd import distill, updates
from ojd.models import layers
from ojd.models.student import from_linen
from tests.reference import host_loop, scenes

LAYERS = ("conv1", "dec1", "dec2", "decoder_conv1")  # and the logits


class _ConvNormRelu(nn.Module):
  @nn.compact
  def __call__(self, x):
    return layers.NormRelu(name="norm")(layers.Conv(8, (3, 3), name="conv")(x))


class LayeredNet(nn.Module):
  """Four convolutions with norms and the logits, each behind the other."""

  num_classes: int

  @nn.compact
  def __call__(self, x):
    x = x.astype(jnp.float32) / 128 - 1
    for name in LAYERS:
      x = _ConvNormRelu(name=name)(x)
    return layers.Conv(self.num_classes, (1, 1), use_bias=True, name="logits")(
      x
    )


STUDENT = from_linen(LayeredNet(3))
FRAMES, LABELS = scenes.coloured_squares(4)


def labels_of(t):
  return host_loop.labels_of(LABELS, t)


def begin(tx, student=STUDENT):
  """First parameters and state of a step."""
  params = student.init(jax.random.key(0), FRAMES[0])
  return params, updates.start(tx, params, FRAMES[0])


def adapted(tx, student=STUDENT, num_updates=3, jit=True, times=(0,)):
  """-> the first parameters, and the result of updates on some key frames."""

  def adapt(params, opt_state, frame, labels):
    return distill.adapt(
      *(student, tx, params, opt_state, frame, labels),
      a_thresh=1.1,
      u_max=num_updates,
    )

  run, results = jax.jit(adapt) if jit else adapt, []
  first = state = begin(tx, student)
  for t in times:
    results.append(run(*state, FRAMES[t], labels_of(t)))
    state = results[-1].params, results[-1].opt_state
  return first[0], *results

"""Figures of the student's speed: `benchmark --what=student,update`."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ojd import distill, losses, updates
from ojd.models import describe, jitnet
from ojd.models.student import from_linen
from ojd.run import measure
from ojd.types import Labels

NUM_CLASSES = 9
# Forward and both gradients; norms, resizes and the loss are not counted.
_FORWARDS_PER_UPDATE = 3


def inputs(size):
  """A student of nine classes, its parameters, a frame and its labels."""
  student = from_linen(jitnet.JITNet(NUM_CLASSES))
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
  classes = rng.integers(0, NUM_CLASSES, size).astype(np.uint8)
  labels = Labels(classes, np.ones(size, np.float32))
  params = jax.jit(student.init)(jax.random.key(0), frame)
  return student, params, *jax.device_put((frame, labels))


def single_update(student, tx, frame, labels):
  """One step outside of any loop, jitted: (params, opt_state) -> the same."""

  @jax.jit
  def step(params, opt_state):
    loss_fn = lambda p: losses.weighted_cross_entropy(
      student.apply(p, frame), labels
    )
    grads = jax.grad(loss_fn)(params)
    steps, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, steps), opt_state

  return step


def _torch_net():
  from experiments import torch_student

  device = "cuda" if jax.default_backend() == "gpu" else "cpu"
  return torch_student, torch_student.make(NUM_CLASSES, device)


def forward(size, repeats):
  """A forward pass to classes, in JAX and in torch."""
  student, params, frame, _ = inputs(size)
  opponent, net = _torch_net()
  apply = jax.jit(lambda p, x: distill.classify(student.apply(p, x)))
  found = measure.compare(
    "student_forward_vs_torch",
    lambda: apply(params, frame),
    opponent.forward_fn(net, np.asarray(frame)),
    repeats=3 * repeats,
    note="",
  )
  return found._replace(note=_note("forward passes to classes", found, size, 1))


def held(size, repeats):
  """A forward pass by the norms of a key frame, and by the frame's own."""
  student, params, frame, _ = inputs(size)
  _, norms = jax.jit(student.observe)(params, frame)
  classify = distill.classify
  by_key = jax.jit(lambda p, n, x: classify(student.apply_held(p, n, x)))
  by_own = jax.jit(lambda p, x: classify(student.apply(p, x)))
  return measure.compare(
    "key_norm_vs_frame_norm",
    lambda: by_key(params, norms, frame),
    lambda: by_own(params, frame),
    repeats=3 * repeats,
    note=f"forward passes to classes, {size[0]}x{size[1]}",
  )


def update(size, repeats):
  """A gradient step, in JAX and in torch."""
  student, params, frame, labels = inputs(size)
  opponent, net = _torch_net()
  tx = updates.sgd(0.01)
  opt_state = tx.init(params)
  step = single_update(student, tx, frame, labels)
  classes = np.asarray(labels.classes)
  found = measure.compare(
    "update_vs_torch",
    lambda: step(params, opt_state),
    opponent.update_fn(net, np.asarray(frame), classes),
    repeats=repeats,
    note="",
  )
  words = "gradient steps"
  return found._replace(note=_note(words, found, size, _FORWARDS_PER_UPDATE))


def _note(words, found, size, num_forwards):
  """What was compared, and how near the device's own limits it came."""
  rows = describe.layer_table(jitnet.JITNet(NUM_CLASSES), *size)
  achieved = num_forwards * describe.gflop(rows) / (1e-3 * found.ms)
  peak = _peak_gflops()
  return (
    f"{words}, {size[0]}x{size[1]}; {achieved:.0f} GFLOP/s, a matrix product "
    f"reaches {peak:.0f}; a copy {_peak_gigabytes():.1f} GB/s"
  )


def _best_seconds(fn, repeats=5):
  jax.block_until_ready(fn())
  spent = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(fn())
    spent.append(time.perf_counter() - start)
  return min(spent)


def _peak_gflops(side=2048):
  """Of a float32 matrix product on this device."""
  x = jnp.ones((side, side), jnp.float32)
  product = jax.jit(lambda x: x @ x)
  return 2 * side**3 / _best_seconds(lambda: product(x)) / 1e9


def _peak_gigabytes(num_bytes=256 << 20):
  """Read and written by a copy on this device."""
  x = jnp.zeros(num_bytes // 4, jnp.float32)
  copy = jax.jit(lambda x: x + 1)
  return 2 * num_bytes / _best_seconds(lambda: copy(x)) / 1e9

"""Students and updates that several entries measure, and the same in torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Result, Setting
from ojd import losses, updates
from ojd.models import describe
from ojd.models import student as student_lib
from ojd.tasks.segmentation import classify
from ojd.types import Labels

NUM_CLASSES = 9
# Forward and both gradients; norms, resizes and the loss are not counted.
_FORWARDS_PER_UPDATE = 3


def inputs(at: Setting, model="jitnet"):
  """A student of nine classes, its parameters, a frame and its labels."""
  student = student_lib.create(model, NUM_CLASSES, precision=at.precision)
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (*at.size, 3)).astype(np.uint8)
  classes = rng.integers(0, NUM_CLASSES, at.size).astype(np.uint8)
  labels = Labels(classes, np.ones(at.size, np.float32))
  params = jax.jit(student.init)(jax.random.key(0), frame)
  return student, params, *jax.device_put((frame, labels))


def forward(at: Setting):
  """A call without arguments: the student's forward pass."""
  student, params, frame, _ = inputs(at)
  apply = jax.jit(student.apply)
  return lambda: apply(params, frame)


def single_update(student, tx, frame, labels):
  """One step outside of any loop: (params, opt_state) -> the same."""

  def step(params, opt_state):
    loss_fn = lambda p: losses.weighted_cross_entropy(
      student.apply(p, frame), labels
    )
    grads = jax.grad(loss_fn)(params)
    steps, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, steps), opt_state

  return jax.jit(step)


def forward_vs_torch(
  name: str, at: Setting, *, model: str = "jitnet", by_compiler: bool = False
) -> Result:
  """A forward pass to classes, in JAX and in torch."""
  student, params, frame, _ = inputs(at, model)
  apply = jax.jit(lambda p, x: classify(student.apply(p, x)))
  apply = apply.lower(params, frame).compile()
  module, net = _network(model, at.precision)
  call = lambda net: module.forward_fn(net, np.asarray(frame))
  found = measure.compare(
    name,
    lambda: apply(params, frame),
    _by_compiler(module, net, call) if by_compiler else call(net),
    at=at,
    repeats=3 * at.repeats,
    note=f"forward passes to classes, {at.precision}",
  )
  return _with_shares(found, apply, _gflop(model, at.size), at.precision)


def update_vs_torch(
  name: str, at: Setting, *, model: str = "jitnet", by_compiler: bool = False
) -> Result:
  """A gradient step, in JAX and in torch; weights are float32 in both."""
  student, params, frame, labels = inputs(at, model)
  tx = updates.sgd(learning_rate=0.01)
  opt_state = tx.init(params)
  step = single_update(student, tx, frame, labels)
  step = step.lower(params, opt_state).compile()
  module, net = _network(model, "float32")
  example = np.asarray(frame), np.asarray(labels.classes)
  call = lambda net: module.update_fn(net, *example, at.precision)
  found = measure.compare(
    name,
    lambda: step(params, opt_state),
    _by_compiler(module, net, call) if by_compiler else call(net),
    at=at,
    note=f"gradient steps, {at.precision}",
  )
  gflop = _FORWARDS_PER_UPDATE * _gflop(model, at.size)
  return _with_shares(found, step, gflop, at.precision)


def _network(model, precision):
  """The same network in torch, and the module that makes calls of it."""
  # Imported here: for most entries torch need not be installed.
  from experiments.benchmarks import torch_networks

  device = "cuda" if jax.default_backend() == "gpu" else "cpu"
  net = torch_networks.make(model, NUM_CLASSES, device, precision)
  return torch_networks, net


def _by_compiler(module, net, call):
  """What `call` makes of the compiled network, compiled now."""
  try:
    fn = call(module.compiled(net))
    fn()
  except Exception as error:  # whatever a missing compiler raises
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise measure.Unavailable(f"torch.compile: {reason}") from None
  return fn


def _gflop(model, size):
  """Of the convolutions of a forward pass."""
  network = student_lib.network(model, NUM_CLASSES)
  return describe.gflop(describe.layer_table(network, *size))


def _with_shares(result, compiled, gflop, precision):
  """A result with its share of the device's limits.

  Args:
    result: of one call of `compiled`.
    compiled: its cost analysis has the bytes that its steps read and write;
      some come from a cache that a copy of the whole memory does not have, so
      that a share may exceed 1.
    gflop: convolutions of a call.
    precision: of the matrix product that is the limit.
  """
  seconds = 1e-3 * result.ms
  costs = compiled.cost_analysis() or {}
  gigabytes = costs.get("bytes accessed", 0.0) / 1e9
  peak, copied = _peak_gflops(precision), _peak_gigabytes()
  limits = (
    f"a matrix product reaches {peak:.0f} GFLOP/s, a copy {copied:.0f} GB/s"
  )
  return result._replace(
    note=f"{result.note}; {limits}",
    flop_share=round(gflop / seconds / peak, 3),
    byte_share=round(gigabytes / seconds / copied, 3) if gigabytes else None,
  )


@functools.cache
def _peak_gflops(precision: str) -> float:
  """Of a matrix product on this device."""
  side = 2048 if jax.default_backend() == "cpu" else 8192
  x = jnp.ones((side, side), student_lib.PRECISIONS[precision])
  product = jax.jit(lambda x: x @ x)
  return 2 * side**3 / _best_seconds(lambda: product(x)) / 1e9


@functools.cache
def _peak_gigabytes(num_bytes: int = 256 << 20) -> float:
  """Read and written a second by a copy on this device."""
  x = jnp.zeros(num_bytes // 4, jnp.float32)
  copy = jax.jit(lambda x: x + 1)
  return 2 * num_bytes / _best_seconds(lambda: copy(x)) / 1e9


def _best_seconds(fn, repeats=5):
  jax.block_until_ready(fn())
  return 1e-3 * min(measure.milliseconds(fn) for _ in range(repeats))

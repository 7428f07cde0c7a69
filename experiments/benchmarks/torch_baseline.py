"""A student beside the same network in torch, and its device's limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import measure, students
from experiments.benchmarks.measure import Result, Setting
from ojd import updates
from ojd.models import describe
from ojd.models.student import PRECISIONS
from ojd.models.student import network as make_network
from ojd.tasks.segmentation import classify

# Forward and both gradients; norms, resizes and the loss are not counted.
_FORWARDS_PER_UPDATE = 3


def forward(
  name: str, at: Setting, *, model: str = "jitnet", by_compiler: bool = False
) -> Result:
  """A forward pass to classes, in JAX and in torch."""
  student, params, frame, _ = students.inputs(at, model)
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


def update(
  name: str, at: Setting, *, model: str = "jitnet", by_compiler: bool = False
) -> Result:
  """A gradient step, in JAX and in torch; weights are float32 in both."""
  student, params, frame, labels = students.inputs(at, model)
  tx = updates.sgd(learning_rate=0.01)
  opt_state = tx.init(params)
  step = students.single_update(student, tx, frame, labels)
  step = step.lower(params, opt_state).compile()
  module, net = _network(model, "float32")
  inputs = np.asarray(frame), np.asarray(labels.classes)
  call = lambda net: module.update_fn(net, *inputs, at.precision)
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
  from experiments.benchmarks import torch_jitnet, torch_mobilenet

  networks = {"jitnet": torch_jitnet, "mobilenet_v2": torch_mobilenet}
  device = "cuda" if jax.default_backend() == "gpu" else "cpu"
  net = networks[model].make(students.NUM_CLASSES, device, precision)
  return torch_jitnet, net


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
  network = make_network(model, students.NUM_CLASSES)
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
  x = jnp.ones((side, side), PRECISIONS[precision])
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

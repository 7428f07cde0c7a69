"""Figures of students: `benchmark --what=student,update,mobilenet,adapt`."""

import functools

import jax
import numpy as np
import optax
from absl import flags

from experiments import roofline
from ojd import distill, losses, updates
from ojd.models import describe
from ojd.models.student import PRECISIONS, from_linen, make_model
from ojd.run import measure
from ojd.types import Labels

NUM_CLASSES = 9
NUM_UPDATES = 8
# Forward and both gradients; norms, resizes and the loss are not counted.
_FORWARDS_PER_UPDATE = 3

_PRECISION = flags.DEFINE_enum(
  "precision",
  None,
  list(PRECISIONS),
  "of student and torch; empty: bfloat16 on a GPU, else float32",
)


def precision() -> str:
  """That in which the figures are taken."""
  is_gpu = jax.default_backend() == "gpu"
  return _PRECISION.value or ("bfloat16" if is_gpu else "float32")


def inputs(size, model="jitnet"):
  """A student of nine classes, its parameters, a frame and its labels."""
  student = from_linen(make_model(model, NUM_CLASSES), precision())
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
  classes = rng.integers(0, NUM_CLASSES, size).astype(np.uint8)
  labels = Labels(classes, np.ones(size, np.float32))
  params = jax.jit(student.init)(jax.random.key(0), frame)
  return student, params, *jax.device_put((frame, labels))


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


def _opponent(model, precision):
  """The same network in torch; and what makes calls of it."""
  # Imported here: for most figures torch need not be there.
  from experiments import torch_mobilenet, torch_student

  networks = {"jitnet": torch_student, "mobilenet_v2": torch_mobilenet}
  device = "cuda" if jax.default_backend() == "gpu" else "cpu"
  return torch_student, networks[model].make(NUM_CLASSES, device, precision)


# What the figures of a model are called.
_FORWARD = {
  "jitnet": "student_forward_vs_torch",
  "mobilenet_v2": "mobilenet_forward_vs_torch",
}
_UPDATE = {
  "jitnet": "update_vs_torch",
  "mobilenet_v2": "mobilenet_update_vs_torch",
}


def _by_compiler(module, net, call):
  """What `call` makes of the compiled network, compiled now."""
  try:
    fn = call(module.compiled(net))
    fn()
  except Exception as error:  # whatever a compiler that is not there raises
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise measure.Unavailable(f"torch.compile: {reason}") from None
  return fn


def _forward(size, repeats, *, model="jitnet", by_compiler=False):
  """A forward pass to classes, in JAX and in torch."""
  student, params, frame, _ = inputs(size, model)
  apply = jax.jit(lambda p, x: distill.classify(student.apply(p, x)))
  apply = apply.lower(params, frame).compile()
  module, net = _opponent(model, precision())
  call = lambda net: module.forward_fn(net, np.asarray(frame))
  found = measure.compare(
    _FORWARD[model] + "_compile" * by_compiler,
    lambda: apply(params, frame),
    _by_compiler(module, net, call) if by_compiler else call(net),
    repeats=3 * repeats,
    note=_note("forward passes to classes", size),
  )
  return roofline.with_shares(found, apply, _gflop(model, size), precision())


def _update(size, repeats, *, model="jitnet", by_compiler=False):
  """A gradient step, in JAX and in torch; weights are float32 in both."""
  student, params, frame, labels = inputs(size, model)
  tx = updates.sgd(learning_rate=0.01)
  opt_state = tx.init(params)
  step = single_update(student, tx, frame, labels)
  step = step.lower(params, opt_state).compile()
  module, net = _opponent(model, "float32")
  taught = np.asarray(frame), np.asarray(labels.classes)
  call = lambda net: module.update_fn(net, *taught, precision())
  found = measure.compare(
    _UPDATE[model] + "_compile" * by_compiler,
    lambda: step(params, opt_state),
    _by_compiler(module, net, call) if by_compiler else call(net),
    repeats=repeats,
    note=_note("gradient steps", size),
  )
  gflop = _FORWARDS_PER_UPDATE * _gflop(model, size)
  return roofline.with_shares(found, step, gflop, precision())


forward = functools.partial(_forward)
forward_compiled = functools.partial(_forward, by_compiler=True)
update = functools.partial(_update)
update_compiled = functools.partial(_update, by_compiler=True)
mobilenet_forward = functools.partial(_forward, model="mobilenet_v2")
mobilenet_update = functools.partial(_update, model="mobilenet_v2")


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
    note=_note("forward passes to classes", size),
  )


def adapt(size, repeats):
  """Eight updates in one `while_loop` against eight jitted single ones."""
  student, params, frame, labels = inputs(size)
  tx = updates.sgd(learning_rate=0.01)
  opt_state = tx.init(params)

  @jax.jit
  def loop(params, opt_state):
    return distill.adapt(
      *(student, tx, params, opt_state, frame, labels),
      a_thresh=2.0,  # never met
      u_max=NUM_UPDATES,
    )

  single = single_update(student, tx, frame, labels)
  return measure.compare(
    "adapt_vs_updates",
    lambda: loop(params, opt_state),
    lambda: single(params, opt_state),
    repeats=repeats,
    ours_per_opponent=NUM_UPDATES,
    note=_note("an update in the loop and alone", size),
  )


def _note(words, size):
  return f"{words}, {size[0]}x{size[1]}, {precision()}"


def _gflop(model, size):
  """Of the convolutions of a forward pass."""
  network = make_model(model, NUM_CLASSES)
  return describe.gflop(describe.layer_table(network, *size))

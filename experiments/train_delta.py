r"""Trains what replaces a student's convolutions between key frames.

    python -m experiments.train_delta --workdir=runs/delta
    python -m experiments.train_delta --workdir=runs/delta16 \
        --form=convolutions:gamma=16:policy=min \
        --init=runs/student/student.safetensors
    python -m experiments.train_delta --workdir=runs/gates --form=skip
    python -m experiments.train_delta --smoke
    python -m experiments.online_distill --workdir=runs/street \
        --system=delta --init=runs/delta/delta.safetensors

A pretrained student learns, on pairs of frames of synthetic worlds one to five
frames apart, to answer the second from what changed since the first. --form
chooses the replacement: with `convolutions`, each layer chooses between one
like its own and a pair of small ones, by their cost; with `blocks`, small
networks replace whole ones; `skip` learns gates that decide where a convolution
is computed. The same command resumes an interrupted training. At the end it
writes delta.safetensors into the workdir, for `online_distill --init=FILE`, and
prints the work of key frames and of the frames between. 6,000 steps take hours
on two cores; --smoke takes under a minute.
"""

import math
import pathlib

import jax
import numpy as np
from absl import flags
from flax import traverse_util

from experiments import cli, progress
from ojd import labels, specs
from ojd.errors import UserError
from ojd.models import pretrained
from ojd.models import student as student_lib
from ojd.models.delta import files, training
from ojd.models.delta.conversion import DELTA, MODEL
from ojd.pretraining import album, batches, trainer
from ojd.run import compilation
from ojd.streams.base import MAX_SIDE, MIN_SIDE

_WORKDIR = flags.DEFINE_string("workdir", "", "the folder of the training")
_MODEL = flags.DEFINE_string(
  "model",
  "jitnet",
  "the network, NAME[:OPTION=VALUE]...: " + ", ".join(student_lib.MODELS),
)
_INIT = flags.DEFINE_string(
  "init", "bundled", "the student to begin with: random, bundled, or a file"
)
_FORM = flags.DEFINE_string(
  "form",
  "convolutions",
  "what replaces convolutions, NAME[:OPTION=VALUE]...\n"
  + specs.describe(training.FORMS),
)
_BETA = flags.DEFINE_float(
  "beta", training.Recipe().beta, "weight of the work in the loss"
)
_INTERVAL = flags.DEFINE_integer(
  "interval",
  3,
  "frames from one whole frame to the next, for the work that is printed at "
  "the end",
)
_STEPS = flags.DEFINE_integer("num_steps", 6_000, "number of updates")
_BATCH = flags.DEFINE_integer("batch", 4, "pairs of frames in an update")
_HEIGHT = flags.DEFINE_integer("height", 192, "height of the frames")
_WIDTH = flags.DEFINE_integer("width", 320, "width of the frames")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the training")
_SMOKE = flags.DEFINE_bool("smoke", False, "a few steps, to see that it works")


def _student():
  model = student_lib.bind(_MODEL.value)
  student = student_lib.create(_MODEL.value, len(album.CLASS_NAMES))
  if _INIT.value == "random":
    return student
  path = pathlib.Path(_INIT.value)
  if _INIT.value == "bundled":
    if model.name not in pretrained.BUNDLED:
      raise UserError(f"--init=bundled: there is none for --model={model}")
    path = pretrained.BUNDLED[model.name]
  given = pretrained.load(path)
  groups = labels.parse_groups("", album.CLASS_NAMES)
  return pretrained.start_from(student, given, groups)


def _form():
  return specs.bind(_FORM.value, training.FORMS, "form")


def _about(form, recipe, batch, size):
  return {
    "model": str(student_lib.bind(_MODEL.value)),
    "init": _INIT.value,
    "form": form.name,
    **form.options,
    "height": size[0],
    "width": size[1],
    "batch": batch,
    "seed": _SEED.value,
    **recipe._asdict(),
  }


def _check():
  for flag in (_STEPS, _BATCH, _INTERVAL):
    if flag.value < 1:
      raise UserError(f"--{flag.name}={flag.value}: at least 1")
  for flag in (_HEIGHT, _WIDTH):
    if not MIN_SIDE <= flag.value <= MAX_SIDE:
      raise UserError(
        f"--{flag.name}={flag.value}: from {MIN_SIDE} to {MAX_SIDE}"
      )
  if not 0 <= _BETA.value < math.inf:
    raise UserError(f"--beta={_BETA.value}: 0 or more, and finite")
  _form()
  student_lib.bind(_MODEL.value)


def main() -> int:
  """Trains, writes the weights and prints their work."""
  _check()
  compilation.enable_cache(compilation.default_cache())
  size, batch = (_HEIGHT.value, _WIDTH.value), _BATCH.value
  recipe = training.Recipe(num_steps=_STEPS.value, beta=_BETA.value)
  if _SMOKE.value:
    recipe, size, batch = recipe._replace(num_steps=3), (64, 96), 1
  student, form = _student(), _form()
  net = form.make(student)
  folder = cli.training_folder(_WORKDIR.value, _SMOKE.value)
  interrupt = cli.Interrupt()
  first_key, step_key = jax.random.split(jax.random.key(_SEED.value))
  frame = np.zeros((*size, 3), np.uint8)
  params = jax.jit(net.init)(first_key, frame)
  log = progress.counter("step", recipe.num_steps)
  about = _about(form, recipe, batch, size)

  def step_fn(state, frames, answers):
    key = jax.random.fold_in(step_key, state.step)
    moved, terms = training.update(net, recipe, state, frames, answers, key)
    return moved, training.total(recipe, state, terms)

  pairs = batches.Pairs(_SEED.value, batch, *size)
  state = trainer.carry_on(
    training.start(params, recipe),
    step_fn,
    about,
    batches.ahead(pairs),
    folder,
    num_steps=recipe.num_steps,
    report_fn=lambda r: log(r.step + 1, f"loss {r.loss:.3f}"),
    should_stop=interrupt.is_wanted,
  )
  if interrupt.is_wanted():
    return interrupt.exit_code()
  params = state.params
  if form.name == files.CONVOLUTIONS:
    is_open = training.names_open(params[DELTA], net.converted)
    print(f"uncompressed: {', '.join(is_open) or 'none'}")
    params = {**params, DELTA: training.deploy(params[DELTA], net.converted)}
  path = folder / "delta.safetensors"
  files.save(path, params, form.name, tuple(album.CLASS_NAMES), about)
  _print_work(student, path, pairs(recipe.num_steps)[0][0])
  print(f"weights: {path}")
  return 0


def _print_work(student, path, frames):
  """Of both speeds, as the file has them, on two frames [2, H, W, 3]."""
  found, trained = files.split(pretrained.load(path))
  net = files.convert_trained(student, trained)
  model = traverse_util.unflatten_dict(found.params, sep="/")
  params = {MODEL: model, DELTA: trained.delta}

  @jax.jit
  def look(params):
    _, cache = net.apply_key(params, frames[0])
    return net.apply_delta(params, cache, frames[1]).gmac

  key, between, every = net.gmac(frames[0]), look(params), _INTERVAL.value
  mean = (key + (every - 1) * between) / every
  print(
    f"GMAC: key frame {key:.4f}, between {between:.4f}, "
    f"mean of every {every} {mean:.4f}"
  )


if __name__ == "__main__":
  cli.run(main)

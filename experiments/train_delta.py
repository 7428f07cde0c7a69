r"""Trains what stands in for a student's convolutions between key frames.

    python -m experiments.train_delta --workdir=runs/delta
    python -m experiments.train_delta --workdir=runs/delta16 --gamma=16 \
        --policy=min --init=runs/student/student.safetensors
    python -m experiments.train_delta --smoke

A student that was trained beforehand learns, on pairs of frames of made-up
worlds one to five frames apart, to answer on the second by what changed since
the first; every layer chooses between a convolution like its own and a pair of
small ones, by what the choice costs. The same command goes on where an
interrupted one stopped. At the end it writes delta.safetensors into the
workdir, with the branches that were chosen, and prints the work of key frames
and of those between. The smoke run takes under a minute.
"""

import pathlib
import tempfile

import jax
import numpy as np
from absl import flags

from experiments import album, cli, lessons, progress
from ojd import labels, pretraining
from ojd.errors import RequestError
from ojd.models import pretrained
from ojd.models import student as student_lib
from ojd.models.delta import changes, files, gates, macs, training
from ojd.models.delta.convert import DELTA, MODEL, convert
from ojd.run import compilation
from ojd.streams import base as streams
from ojd.types import Labels

_WORKDIR = flags.DEFINE_string("workdir", "", "where the training is kept")
_MODEL = flags.DEFINE_string("model", "jitnet", ", ".join(student_lib.MODELS))
_MULTIPLIER = flags.DEFINE_float(
  "width_multiplier", None, "of the network's widths; empty: its own"
)
_INIT = flags.DEFINE_string(
  "init", "bundled", "the student: random, bundled, or a file"
)
_GAMMA = flags.DEFINE_integer("gamma", 4, "times fewer channels between")
_POLICY = flags.DEFINE_string("policy", "out", ", ".join(changes.POLICIES))
_INTERVAL = flags.DEFINE_integer("interval", 3, "of the work that is printed")
_STEPS = flags.DEFINE_integer("num_steps", 6_000, "updates")
_BATCH = flags.DEFINE_integer("batch", 4, "pairs an update")
_SEED = flags.DEFINE_integer("seed", 0, "of the whole training")
_SMOKE = flags.DEFINE_bool("smoke", False, "a few steps, to see that it works")

_HEIGHT, _WIDTH = 192, 320
_NUM_FRAMES, _FARTHEST = 600, 5
_LAST_SEED = 900_000_000


class Pairs:
  """Two frames of a world, the later one labelled; by the step alone."""

  def __init__(self, seed: int, batch: int, height: int, width: int):
    self._seed, self._batch, self._size = seed, batch, (height, width)
    self._groups = labels.parse_groups("", album.CLASS_NAMES)

  def __call__(self, step: int) -> lessons.Batch:
    """Frames [B, 2, H, W, 3] and labels [B, H, W]."""
    rng = np.random.default_rng([self._seed, 2, step])
    pairs = [self._pair(rng) for _ in range(self._batch)]
    frames, answers = zip(*pairs, strict=True)
    classes, weights = zip(*answers, strict=True)
    return np.stack(frames), Labels(np.stack(classes), np.stack(weights))

  def _pair(self, rng):
    scene = album.SCENES[int(rng.integers(len(album.SCENES)))]
    seed = album.FIRST_SEED + int(rng.integers(_LAST_SEED))
    address = f"synthetic:{scene}?seed={seed}&num_frames={_NUM_FRAMES}"
    stream = streams.open_stream(address, *self._size)
    distance = int(rng.integers(1, _FARTHEST + 1))
    t = int(rng.integers(_NUM_FRAMES - distance))
    first, last = (next(iter(stream.read(i))) for i in (t, t + distance))
    groups = labels.match_groups(self._groups, stream.spec.class_names)
    classes = np.take(groups.lookup, last.truth)
    answer = labels.from_class_map(classes, self._groups)
    return np.stack([first.frame, last.frame]), answer


def _student():
  model = student_lib.make_model(
    _MODEL.value, len(album.CLASS_NAMES), _MULTIPLIER.value
  )
  student = student_lib.from_linen(model)
  if _INIT.value == "random":
    return student
  path = pathlib.Path(_INIT.value)
  if _INIT.value == "bundled":
    if _MODEL.value not in pretrained.BUNDLED:
      raise RequestError(f"--init=bundled: none is of --model={_MODEL.value}")
    path = pretrained.BUNDLED[_MODEL.value].path
  given = pretrained.load(path)
  groups = labels.parse_groups("", album.CLASS_NAMES)
  return pretrained.start_from(student, given, groups)


def _folder():
  folder = pathlib.Path(_WORKDIR.value or tempfile.mkdtemp(prefix="ojd-"))
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise RequestError(f"--workdir={folder}: {error.strerror}") from None
  return folder


def _about(recipe, batch):
  return {
    "model": _MODEL.value,
    "width_multiplier": _MULTIPLIER.value,
    "init": _INIT.value,
    "gamma": _GAMMA.value,
    "policy": _POLICY.value,
    "batch": batch,
    "seed": _SEED.value,
    **recipe._asdict(),
  }


def main() -> int:
  """Trains, writes the chosen branches and prints what they cost."""
  if not (_WORKDIR.value or _SMOKE.value):
    raise RequestError("--workdir=DIR is missing: where is it to be kept?")
  for flag in (_STEPS, _BATCH, _INTERVAL):
    if flag.value < 1:
      raise RequestError(f"--{flag.name}={flag.value}: at least 1")
  student_lib.check_model(_MODEL.value, _MULTIPLIER.value)
  compilation.enable_cache(compilation.default_cache())
  size, batch = (_HEIGHT, _WIDTH), _BATCH.value
  recipe = training.Recipe(num_steps=_STEPS.value)
  if _SMOKE.value:
    recipe, size, batch = recipe._replace(num_steps=3), (64, 96), 1
  student = _student()
  pair = changes.pair(gamma=_GAMMA.value, policy=_POLICY.value)
  net = convert(student, gates.gated(changes.full(), pair))
  changes.check_gamma(_GAMMA.value, _POLICY.value, net.sites)
  interrupt, folder = cli.Interrupt(), _folder()
  first_key, step_key = jax.random.split(jax.random.key(_SEED.value))
  frame = np.zeros((*size, 3), np.uint8)
  params = jax.jit(net.init)(first_key, frame)
  log = progress.Counter("step", recipe.num_steps)
  about = _about(recipe, batch)

  def step_fn(state, frames, answers):
    key = jax.random.fold_in(step_key, state.step)
    moved, terms = training.update(net, recipe, state, frames, answers, key)
    return moved, training.total(recipe, state, terms)

  state = pretraining.carry_on(
    training.start(params, recipe),
    step_fn,
    about,
    lessons.ahead(Pairs(_SEED.value, batch, *size)),
    folder,
    num_steps=recipe.num_steps,
    report_fn=lambda r: log(r.step + 1, f"loss {r.loss:.3f}"),
    should_stop=interrupt.is_wanted,
  )
  if interrupt.is_wanted():
    return interrupt.exit_code()
  delta = gates.deploy(state.params[DELTA], net.sites)
  path = folder / "delta.safetensors"
  params = {MODEL: state.params[MODEL], DELTA: delta}
  files.save(path, files.Trained(params, tuple(album.CLASS_NAMES), about))
  rows = macs.table(student, gates.as_deployed(delta), *size)
  cost = macs.cost(rows, _INTERVAL.value)
  is_open = gates.names_open(state.params[DELTA], net.sites)
  print(f"uncompressed: {', '.join(is_open) or 'none'}")
  print(
    f"GMAC: key frame {cost.key:.4f}, between {cost.delta:.4f}, "
    f"mean of every {_INTERVAL.value} {cost.amortised:.4f}"
  )
  print(f"weights: {path}")
  return 0


if __name__ == "__main__":
  cli.run(main)

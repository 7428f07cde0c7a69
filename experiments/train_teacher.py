r"""Trains mask_rcnn_tiny, a small Mask R-CNN, on the synthetic world.

    python -m experiments.train_teacher --workdir=runs/teacher
    python -m experiments.train_teacher --smoke

The defaults made the bundled weights: about ninety minutes on two cores, 3 GB
of memory, a mean IoU of 0.75 on unseen worlds. The same command resumes an
interrupted training. At the end it writes mask_rcnn_tiny.safetensors into the
workdir and prints the IoU of each class. --smoke takes under a minute.
"""

import numpy as np
from absl import flags

from experiments import cli, progress
from ojd import labels
from ojd.errors import UserError
from ojd.pretraining import album
from ojd.teachers import detector, tiny, train_tiny

_DEFAULTS = train_tiny.Recipe()
_WORKDIR = flags.DEFINE_string("workdir", "", "the folder of the training")
_STEPS = flags.DEFINE_integer(
  "num_steps", _DEFAULTS.num_steps, "number of updates"
)
_BATCH = flags.DEFINE_integer("batch", _DEFAULTS.batch, "frames in an update")
_RATE = flags.DEFINE_float(
  "learning_rate", _DEFAULTS.learning_rate, "the highest learning rate"
)
_SEED = flags.DEFINE_integer("seed", _DEFAULTS.seed, "seed of the training")
_SMOKE = flags.DEFINE_bool("smoke", False, "make four steps on small data")


class Batches:
  """Draws the batch of any step: a function of recipe and step."""

  def __init__(self, recipe: train_tiny.Recipe, pages: album.Album):
    self._recipe, self._pages = recipe, pages
    self._shares = album.frame_shares(pages)

  def __call__(self, step: int) -> tuple[list, list]:
    """Images and targets, as torchvision's detectors take them."""
    rng = np.random.default_rng([self._recipe.seed, 1, step])
    pairs = []
    for i in rng.choice(len(self._shares), self._recipe.batch, p=self._shares):
      pair = train_tiny.example(*(part[i] for part in self._pages))
      pairs.append(train_tiny.mirror(*pair) if rng.random() < 0.5 else pair)
    images, targets = zip(*pairs, strict=True)
    return list(images), list(targets)


def evaluate(teacher, recipe: train_tiny.Recipe, addresses, every: int):
  """IoU of each class where a teacher's instances become labels."""
  groups = labels.parse_groups("", tiny.CLASS_NAMES)
  size = recipe.height, recipe.width
  return album.evaluate(
    lambda sample: (
      labels.from_instances(teacher(sample), groups, *size).classes
    ),
    addresses,
    *size,
    every=every,
  )


def _draw(recipe):
  """The frames to train on; the state of a training does not hold them."""
  log = progress.counter("world", recipe.num_worlds)
  plan = album.Plan(
    recipe.seed,
    recipe.num_worlds,
    recipe.frames_per_world,
    recipe.height,
    recipe.width,
  )
  return album.draw(plan, lambda num_worlds: log(num_worlds, "drawn"))


def main() -> int:
  """Trains, writes the weights and evaluates them."""
  if _STEPS.value < 1 or _BATCH.value < 1 or not _RATE.value > 0:
    raise UserError("--num_steps, --batch, --learning_rate: above 0")
  recipe = _DEFAULTS._replace(
    seed=_SEED.value,
    num_steps=_STEPS.value,
    num_dense_steps=min(_DEFAULTS.num_dense_steps, _STEPS.value // 3),
    batch=_BATCH.value,
    learning_rate=_RATE.value,
  )
  if _SMOKE.value:
    recipe = recipe._replace(
      num_steps=4, num_dense_steps=2, batch=2, num_worlds=2, frames_per_world=2
    )
  folder = cli.training_folder(_WORKDIR.value, _SMOKE.value)
  pages = _draw(recipe)
  interrupt, log = cli.Interrupt(), progress.counter("step", recipe.num_steps)
  model = train_tiny.train(
    recipe,
    Batches(recipe, pages),
    folder,
    report_fn=lambda r: log(r.step + 1, f"loss {r.loss:.3f}"),
    should_stop=interrupt.is_wanted,
  )
  if interrupt.is_wanted():
    return interrupt.exit_code()
  path = folder / tiny.WEIGHTS.name
  tiny.save(model, path)
  teacher = detector.Detector(
    model, tiny.CLASS_NAMES, detector.pick_device("cpu")
  )
  addresses, every = album.STREAMS, 20
  if _SMOKE.value:
    addresses, every = addresses[:1], 300
  print(album.in_words(evaluate(teacher, recipe, addresses, every)))
  print(f"weights: {path}")
  return 0


if __name__ == "__main__":
  cli.run(main)

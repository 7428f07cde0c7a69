r"""Pretrains a student: on synthetic worlds, on COCO, or on one stream.

    python -m experiments.pretrain --workdir=runs/student
    python -m experiments.pretrain --workdir=runs/coco --data=coco:DIR
    python -m experiments.pretrain --workdir=runs/oracle --every=5 \
        --stream=folder:DIR --teacher=ground_truth --height=192 --width=320
    python -m experiments.pretrain --workdir=runs/imagenet \
        --data=torchvision:mobilenet_v2-7ebf99e0.pth --model=mobilenet_v2
    python -m experiments.pretrain --smoke

The first makes the student of `--init=bundled`: half an hour on one core, a
mean IoU of 0.58 on unseen worlds, before it adapts to anything; it prints the
IoU of each class. A COCO folder holds annotations/instances_train2017.json and
train2017/ (or those of --split); 150,000 steps of it need a GPU. The third
trains on one stream, as `--system=offline_oracle` does by itself; the stream's
frames stay in the workdir's album/, which may then be deleted. The fourth only
imports torchvision's MobileNetV2 of ImageNet, 2,223,872 numbers, without its
classifier and its running averages: the head of the student starts at random,
and a student norms every frame by its own statistics. --smoke takes under a
minute. The same command resumes an interrupted training. At the end it
writes student.safetensors into the workdir, for `online_distill --init=FILE`.

All devices take part, each with an equal share of the batch; --devices=4 takes
four (of a CPU, cores). Over two hosts, the first of which writes the workdir,
one command on each:

    python -m experiments.pretrain --workdir=runs/coco --data=coco:DIR \
        --coordinator=FIRST:4321 --num_processes=2 --process_id=0
    python -m experiments.pretrain --workdir=runs/coco --data=coco:DIR \
        --coordinator=FIRST:4321 --num_processes=2 --process_id=1
    srun -N 2 python -m experiments.pretrain ... --coordinator=auto

The result is that of one device with the same --batch, up to rounding. All stop
when one is interrupted and, after 100 s at the latest, when one dies; the same
commands resume from the first host's checkpoint, on any number of hosts. A
stream (--stream) is trained on by one host.
"""

import contextlib
import functools
import pathlib
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from experiments import cli, parallel_flags, progress
from ojd.errors import UserError
from ojd.formats import coco
from ojd.models import pretrained
from ojd.models import student as student_lib
from ojd.pretraining import album, batches, data_parallel, trainer
from ojd.pretraining.trainer import Recipe
from ojd.run import build, compilation, preparing
from ojd.run import config as config_lib
from ojd.run.config import RunConfig
from ojd.systems.offline_oracle import EVERY, collect, make_recipe
from ojd.tasks.segmentation import classify

flags.adopt_module_key_flags(parallel_flags)
_DATA = flags.DEFINE_string(
  "data",
  "synthetic",
  "synthetic or coco:DIR, to train on; torchvision:FILE, to import weights",
)
_SPLIT = flags.DEFINE_string("split", "train2017", "split of a COCO folder")
_STREAM = flags.DEFINE_string(
  "stream",
  "",
  "train on this one stream with the labels of --teacher, instead of --data",
)
_OF_STREAM = {
  "teacher": flags.DEFINE_string(
    "teacher", "mask_rcnn_tiny", "the teacher that labels the stream"
  ),
  "classes": flags.DEFINE_string(
    "classes", "", "classes of the student, as online_distill takes them"
  ),
  "init": flags.DEFINE_string(
    "init",
    "bundled",
    "the student's first parameters, as online_distill takes them",
  ),
  "height": flags.DEFINE_integer(
    "height", None, "height of the stream's frames"
  ),
  "width": flags.DEFINE_integer("width", None, "width of the stream's frames"),
  "num_frames": flags.DEFINE_integer(
    "num_frames", None, "frames of the stream to train on; empty: all"
  ),
}
_EVERY = flags.DEFINE_integer(
  "every", EVERY, "train on every n-th frame of a stream"
)
_WORKDIR = flags.DEFINE_string("workdir", "", "the folder of the training")
_MODEL = flags.DEFINE_string(
  "model",
  "jitnet",
  "the network, NAME[:OPTION=VALUE]...: " + ", ".join(student_lib.MODELS),
)
_STEPS = flags.DEFINE_integer(
  "num_steps", None, "number of updates; empty: the recipe's"
)
_BATCH = flags.DEFINE_integer(
  "batch", None, "frames in an update; empty: the recipe's"
)
_RATE = flags.DEFINE_float(
  "learning_rate", None, "the highest learning rate; empty: the recipe's"
)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the training")
_SMOKE = flags.DEFINE_bool("smoke", False, "make a few steps on small data")

_WEIGHTS = "student.safetensors"
_NUM_WORLDS, _FRAMES_PER_WORLD = 500, 8
# Other worlds than those of the bundled teacher.
_ALBUM_SEED = 1


class Setup(NamedTuple):
  """What is trained on, and how."""

  recipe: Recipe
  class_names: tuple[str, ...]
  about: dict  # JSON; of the data
  batch_fn: Callable[[int], batches.Batch]
  student: student_lib.Student | None = None  # None: random weights


def synthetic_setup(mesh: Mesh | None) -> Setup:
  """Worlds of other seeds than those of the evaluation."""
  recipe = _changed(Recipe())
  worlds, frames = _NUM_WORLDS, _FRAMES_PER_WORLD
  if _SMOKE.value:
    recipe = recipe._replace(num_steps=3, batch=_smoke_batch(2, mesh))
    worlds, frames = 2, 2
  rows = data_parallel.rows(mesh, recipe.batch)
  plan = album.Plan(
    _ALBUM_SEED + _SEED.value, worlds, frames, recipe.height, recipe.width
  )
  log = progress.counter("world", worlds)
  pages = album.draw(plan, lambda num_worlds: log(num_worlds, "drawn"))
  return Setup(
    recipe,
    album.CLASS_NAMES,
    {"data": "synthetic", "num_worlds": worlds, "frames_per_world": frames},
    batches.ahead(batches.Worlds(recipe, pages, rows)),
  )


def coco_setup(folder: str, split: str, mesh: Mesh | None) -> Setup:
  """The authors' recipe for COCO, on the things in its images."""
  root = pathlib.Path(folder).expanduser()
  images = coco.open_coco(
    root / split, root / "annotations" / f"instances_{split}.json"
  )
  recipe = _changed(batches.COCO)
  if _SMOKE.value:
    batch = _smoke_batch(1, mesh)
    recipe = recipe._replace(num_steps=2, batch=batch, height=96, width=96)
  rows = data_parallel.rows(mesh, recipe.batch)
  steps = max(batches.COCO_EPOCHS_A_DECAY * len(images) // recipe.batch, 1)
  return Setup(
    recipe._replace(decay_steps=steps),
    images.class_names,
    {"data": "coco", "split": split, "num_images": len(images)},
    batches.ahead(batches.Coco(recipe, images, rows)),
  )


def stream_setup(
  folder: pathlib.Path, should_stop, mesh: Mesh | None
) -> Setup | None:
  """What `--system=offline_oracle` learns; None where it was stopped.

  Args:
    folder: of the frames, once they are labelled.
    should_stop: asked before each of them.
    mesh: of the devices to train on.
  """
  if parallel_flags.are_hosts():
    raise UserError("--stream is trained on by one host; without --coordinator")
  if _EVERY.value < 1:
    raise UserError(f"--every={_EVERY.value}: at least 1")
  config = RunConfig(
    stream=_STREAM.value,
    system="offline_oracle",
    workdir=str(folder),
    seed=_SEED.value,
    model=_MODEL.value,
    **{name: holder.value for name, holder in _OF_STREAM.items()},
  )
  config_lib.check(config)
  with contextlib.closing(build.make_job(config)) as job:
    wanted = preparing.preparation(job, folder, cli.note, should_stop)
    found = collect(wanted, _EVERY.value)
  if found is None:
    return None
  recipe = _changed(make_recipe(wanted, len(found.frames)))
  if _SMOKE.value:
    recipe = recipe._replace(num_steps=2, batch=_smoke_batch(1, mesh))
  data_parallel.rows(mesh, recipe.batch)  # refuses those that do not divide
  batch_fn = functools.partial(found.batch, recipe)
  about = {"data": "stream", "every": _EVERY.value, **wanted.about}
  return Setup(recipe, wanted.class_names, about, batch_fn, wanted.student)


def _smoke_batch(least, mesh):
  """As few frames as there are devices, and at least so many."""
  return least if mesh is None else -(-least // mesh.size) * mesh.size


def _changed(recipe):
  asked = {
    "num_steps": _STEPS.value,
    "batch": _BATCH.value,
    "learning_rate": _RATE.value,
  }
  asked = {name: x for name, x in asked.items() if x is not None}
  for name, x in asked.items():
    if not x > 0:
      raise UserError(f"--{name}={x}: above 0")
  return recipe._replace(seed=_SEED.value, **asked)


def _setup(folder, should_stop, mesh):
  if _STREAM.value:
    return stream_setup(folder, should_stop, mesh)
  kind, _, folder = _DATA.value.partition(":")
  if kind == "coco" and folder:
    return coco_setup(folder, _SPLIT.value, mesh)
  if _DATA.value == "synthetic":
    return synthetic_setup(mesh)
  raise UserError(
    f"--data={_DATA.value}: synthetic, coco:DIR or torchvision:FILE"
  )


def _evaluate(student, params, recipe):
  predict = jax.jit(lambda f: classify(student.apply(params, f)))
  addresses, every = album.STREAMS, 20
  if _SMOKE.value:
    addresses, every = addresses[:1], 300
  return album.evaluate(
    lambda sample: jax.device_get(predict(sample.frame)),
    addresses,
    recipe.height,
    recipe.width,
    every=every,
  )


class Trained(NamedTuple):
  """A training that ended."""

  setup: Setup
  student: student_lib.Student
  about: dict
  params: student_lib.Params  # on this host
  is_finished: bool


def _folder():
  """The workdir, which the first host makes; with --smoke a new one."""
  if data_parallel.is_first_host():
    return cli.training_folder(_WORKDIR.value, _SMOKE.value)
  return pathlib.Path(_WORKDIR.value or tempfile.mkdtemp(prefix="ojd-"))


def _train(folder, setup, mesh, should_stop):
  """Trains, from the checkpoint of the folder if there is one."""
  recipe, model = setup.recipe, student_lib.bind(_MODEL.value)
  student = setup.student or student_lib.create(
    _MODEL.value, len(setup.class_names)
  )
  about = {"model": str(model), **setup.about}
  log, steps = progress.counter("step", recipe.num_steps), []

  def report(made):
    steps[:] = [made.step + 1]
    if data_parallel.is_first_host():
      log(made.step + 1, f"loss {made.loss:.3f}")

  params = trainer.train(
    student,
    recipe,
    about,
    setup.batch_fn,
    folder,
    report_fn=report,
    should_stop=should_stop,
    mesh=mesh,
  )
  # None were made where it was finished before.
  is_finished = steps in ([], [recipe.num_steps])
  params = jax.device_get(params)
  return Trained(setup, student, about | recipe._asdict(), params, is_finished)


def _import(path):
  """Writes torchvision's weights into the workdir."""
  # Imported here: to train a student torch need not be installed.
  from experiments import torchvision_weights

  given = torchvision_weights.load(path.expanduser(), _MODEL.value)
  path = _folder() / _WEIGHTS
  pretrained.save(path, given, np.float32)
  count = sum(x.size for x in given.params.values())
  print(f"weights: {path}, the backbone, {count:,} parameters")


def _write(folder, trained):
  """Writes the weights and evaluates them."""
  setup, about = trained.setup, trained.about
  path = folder / _WEIGHTS
  flat = pretrained.flatten(trained.params)
  pretrained.save(path, pretrained.Pretrained(flat, setup.class_names, about))
  if about["data"] == "synthetic":
    table = _evaluate(trained.student, trained.params, setup.recipe)
    print(album.in_words(table))
  print(f"weights: {path}")


def main() -> int:
  """Trains, writes the weights and evaluates them."""
  if not (_WORKDIR.value or _SMOKE.value):
    raise UserError("--workdir=DIR is missing: the folder of the training")
  student_lib.bind(_MODEL.value)
  kind, _, path = _DATA.value.partition(":")
  if kind == "torchvision" and path and not _STREAM.value:
    _import(pathlib.Path(path))
    return 0
  compilation.enable_cache(compilation.default_cache())
  interrupt = cli.Interrupt()
  with parallel_flags.joined() as mesh:
    is_first = data_parallel.is_first_host()

    def prepare():
      folder = _folder()
      return folder, _setup(folder, interrupt.is_wanted, mesh)

    folder, setup = data_parallel.on_all_hosts(prepare)
    if setup is None:
      return interrupt.exit_code()
    trained = _train(folder, setup, mesh, interrupt.is_wanted)
  if interrupt.is_wanted():
    return interrupt.exit_code()
  if not trained.is_finished:
    raise RuntimeError("another host was stopped; the same commands resume")
  if is_first:
    _write(folder, trained)
  return 0


if __name__ == "__main__":
  cli.run(main)

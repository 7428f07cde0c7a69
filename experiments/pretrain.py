r"""Trains a student beforehand: on made-up worlds, on COCO, or on one stream.

    python -m experiments.pretrain --workdir=runs/student
    python -m experiments.pretrain --workdir=runs/coco --data=coco:DIR
    python -m experiments.pretrain --workdir=runs/oracle --every=5 \
        --stream=folder:DIR --teacher=ground_truth --height=192 --width=320
    python -m experiments.pretrain --smoke

The first makes the student of `--init=bundled`: half an hour on one core, a
mean IoU of 0.58 on worlds never seen, before it adapts to anything. A COCO
folder holds annotations/instances_train2017.json and train2017/ (or those of
--split); 150,000 steps of it need a GPU. The same command goes on where an
interrupted one stopped. At the end it writes student.safetensors into the
workdir, for `online_distill --init=FILE`, so that `--init=FILE --system=frozen`
plays a stream with what was learnt of it, as `--system=offline_oracle` does by
itself. The frames of a stream stay in the workdir's album/, which may then be
deleted; of the synthetic world it also prints
the IoU of each class on worlds never seen.

Every device that is there takes part, each with an equal share of the batch;
--devices=4 takes four (of a CPU, cores). Over two hosts, the first of which
writes the workdir, one command on each:

    python -m experiments.pretrain --workdir=runs/coco --data=coco:DIR \
        --coordinator=FIRST:4321 --num_processes=2 --process_id=0
    python -m experiments.pretrain --workdir=runs/coco --data=coco:DIR \
        --coordinator=FIRST:4321 --num_processes=2 --process_id=1
    srun -N 2 python -m experiments.pretrain ... --coordinator=auto

What is learnt is that of one device with the same --batch, but for rounding.
All end where one is interrupted and, after 100 s at the latest, where one dies;
the same commands go on from what the first kept, on any number of hosts. A
stream (--stream) is learnt on one.
"""

import contextlib
import functools
import pathlib
import sys
import tempfile
from typing import NamedTuple

import jax
from absl import flags
from jax.sharding import Mesh

from experiments import album, cli, judging, lessons, parallel_flags, progress
from ojd import data_parallel, distill, pretraining
from ojd.errors import UserError
from ojd.formats import coco
from ojd.models import pretrained
from ojd.models import student as student_lib
from ojd.pretraining import Recipe
from ojd.run import compilation, preparing
from ojd.run import config as config_lib
from ojd.run import job as job_lib
from ojd.run.config import RunConfig
from ojd.systems import offline_oracle

_DATA = flags.DEFINE_string(
  "data", "synthetic", "what is learnt from: synthetic, or coco:DIR"
)
_SPLIT = flags.DEFINE_string("split", "train2017", "of a COCO folder")
_STREAM = flags.DEFINE_string(
  "stream", "", "learns this one stream, labelled by --teacher, not --data"
)
_OF_STREAM = {
  "teacher": flags.DEFINE_string("teacher", "mask_rcnn_tiny", "who labels it"),
  "classes": flags.DEFINE_string("classes", "", "what to tell apart in it"),
  "init": flags.DEFINE_string("init", "bundled", "what training begins with"),
  "height": flags.DEFINE_integer("height", None, "of its frames"),
  "width": flags.DEFINE_integer("width", None, "likewise"),
  "num_frames": flags.DEFINE_integer("num_frames", None, "of it; empty: all"),
}
_EVERY = flags.DEFINE_integer(
  "every", offline_oracle.EVERY, "learn every n-th frame of a stream"
)
_WORKDIR = flags.DEFINE_string("workdir", "", "where the training is kept")
_MODEL = flags.DEFINE_string(
  "model",
  "jitnet",
  "the network, NAME[:OPTION=VALUE]...: " + ", ".join(student_lib.MODELS),
)
_STEPS = flags.DEFINE_integer("num_steps", None, "updates; empty: the recipe's")
_BATCH = flags.DEFINE_integer("batch", None, "frames an update; likewise")
_RATE = flags.DEFINE_float("learning_rate", None, "the highest; likewise")
_SEED = flags.DEFINE_integer("seed", 0, "of the whole training")
_SMOKE = flags.DEFINE_bool("smoke", False, "a few steps, to see that it works")

_NUM_WORLDS, _FRAMES_PER_WORLD = 500, 8
# Other worlds than those of the bundled teacher.
_ALBUM_SEED = 1


class Course(NamedTuple):
  """What is taught, and how."""

  recipe: Recipe
  class_names: tuple[str, ...]
  about: dict  # JSON; of the data
  batch_fn: lessons.Callable[[int], lessons.Batch]
  student: student_lib.Student | None = None  # None: one that knows nothing


def synthetic_course(mesh: Mesh | None) -> Course:
  """Worlds of other seeds than those that anything is judged by."""
  recipe = _changed(Recipe())
  worlds, frames = _NUM_WORLDS, _FRAMES_PER_WORLD
  if _SMOKE.value:
    recipe = recipe._replace(num_steps=3, batch=_smoke_batch(2, mesh))
    worlds, frames = 2, 2
  rows = data_parallel.rows(mesh, recipe.batch)
  plan = album.Plan(
    _ALBUM_SEED + _SEED.value, worlds, frames, recipe.height, recipe.width
  )
  log = progress.Counter("world", worlds)
  pages = album.draw(plan, lambda num_worlds: log(num_worlds, "drawn"))
  return Course(
    recipe,
    album.CLASS_NAMES,
    {"data": "synthetic", "num_worlds": worlds, "frames_per_world": frames},
    lessons.ahead(lessons.Worlds(recipe, pages, rows)),
  )


def coco_course(folder: str, split: str, mesh: Mesh | None) -> Course:
  """The authors' recipe for COCO, on the things of its pictures."""
  root = pathlib.Path(folder).expanduser()
  images = coco.open_coco(
    root / split, root / "annotations" / f"instances_{split}.json"
  )
  recipe = _changed(lessons.COCO)
  if _SMOKE.value:
    batch = _smoke_batch(1, mesh)
    recipe = recipe._replace(num_steps=2, batch=batch, height=96, width=96)
  rows = data_parallel.rows(mesh, recipe.batch)
  steps = max(lessons.COCO_EPOCHS_A_DECAY * len(images) // recipe.batch, 1)
  return Course(
    recipe._replace(decay_steps=steps),
    images.class_names,
    {"data": "coco", "split": split, "num_images": len(images)},
    lessons.ahead(lessons.Coco(recipe, images, rows)),
  )


def stream_course(
  folder: pathlib.Path, should_stop, mesh: Mesh | None
) -> Course | None:
  """What `--system=offline_oracle` learns; None where it was stopped.

  Args:
    folder: of the frames, once they are labelled.
    should_stop: asked before each of them.
    mesh: of the devices to train on.
  """
  if parallel_flags.are_hosts():
    raise UserError("--stream is learnt on one host; without --coordinator")
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
  note = lambda words: print(words, file=sys.stderr)
  with contextlib.closing(job_lib.make_job(config)) as job:
    wanted = preparing.preparation(job, folder, note, should_stop)
    found = offline_oracle.collect(wanted, _EVERY.value)
  if found is None:
    return None
  recipe = _changed(offline_oracle.make_recipe(wanted, len(found.frames)))
  if _SMOKE.value:
    recipe = recipe._replace(num_steps=2, batch=_smoke_batch(1, mesh))
  data_parallel.rows(mesh, recipe.batch)  # refuses those that do not divide
  batch_fn = functools.partial(found.batch, recipe)
  about = {"data": "stream", "every": _EVERY.value, **wanted.about}
  return Course(recipe, wanted.class_names, about, batch_fn, wanted.student)


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


def _course(folder, should_stop, mesh):
  if _STREAM.value:
    return stream_course(folder, should_stop, mesh)
  kind, _, folder = _DATA.value.partition(":")
  if kind == "coco" and folder:
    return coco_course(folder, _SPLIT.value, mesh)
  if _DATA.value == "synthetic":
    return synthetic_course(mesh)
  raise UserError(f"--data={_DATA.value}: synthetic or coco:DIR")


def _judge(student, params, recipe):
  predict = jax.jit(lambda f: distill.classify(student.apply(params, f)))
  addresses, every = judging.JUDGED, 20
  if _SMOKE.value:
    addresses, every = addresses[:1], 300
  return judging.judge(
    lambda sample: jax.device_get(predict(sample.frame)),
    addresses,
    recipe.height,
    recipe.width,
    every=every,
  )


class Trained(NamedTuple):
  """What a training comes to."""

  course: Course
  student: student_lib.Student
  about: dict
  params: student_lib.Params  # on this host
  is_whole: bool


def _folder():
  """The workdir; of smoke a new one."""
  folder = pathlib.Path(_WORKDIR.value or tempfile.mkdtemp(prefix="ojd-"))
  try:
    if data_parallel.is_first_host():
      folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"--workdir={folder}: {error.strerror}") from None
  return folder


def _train(folder, course, mesh, should_stop):
  """Trains, from where the folder left off."""
  recipe, model = course.recipe, student_lib.bind(_MODEL.value)
  student = course.student or student_lib.create(
    _MODEL.value, len(course.class_names)
  )
  about = {"model": str(model), **course.about}
  log, steps = progress.Counter("step", recipe.num_steps), []

  def report(made):
    steps[:] = [made.step + 1]
    if data_parallel.is_first_host():
      log(made.step + 1, f"loss {made.loss:.3f}")

  params = pretraining.train(
    student,
    recipe,
    about,
    course.batch_fn,
    folder,
    report_fn=report,
    should_stop=should_stop,
    mesh=mesh,
  )
  # None were made where it was whole before.
  is_whole = steps in ([], [recipe.num_steps])
  params = jax.device_get(params)
  return Trained(course, student, about | recipe._asdict(), params, is_whole)


def _write(folder, trained):
  """Weights, and what they are worth."""
  course, about = trained.course, trained.about
  path = folder / "student.safetensors"
  flat = pretrained.flatten(trained.params)
  pretrained.save(path, pretrained.Pretrained(flat, course.class_names, about))
  if about["data"] == "synthetic":
    table = _judge(trained.student, trained.params, course.recipe)
    print(judging.in_words(table))
  print(f"weights: {path}")


def main() -> int:
  """Trains, writes the weights and judges them."""
  if not (_WORKDIR.value or _SMOKE.value):
    raise UserError("--workdir=DIR is missing: where is it to be kept?")
  student_lib.bind(_MODEL.value)
  compilation.enable_cache(compilation.default_cache())
  interrupt = cli.Interrupt()
  with parallel_flags.joined() as mesh:
    is_first = data_parallel.is_first_host()

    def prepare():
      folder = _folder()
      return folder, _course(folder, interrupt.is_wanted, mesh)

    folder, course = data_parallel.on_all_hosts(prepare)
    if course is None:
      return interrupt.exit_code()
    trained = _train(folder, course, mesh, interrupt.is_wanted)
  if interrupt.is_wanted():
    return interrupt.exit_code()
  if not trained.is_whole:
    raise RuntimeError("another host was stopped; the same commands go on")
  if is_first:
    _write(folder, trained)
  return 0


if __name__ == "__main__":
  cli.run(main)

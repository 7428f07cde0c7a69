"""A student that has seen the stream beforehand, and then never learns.

It is trained on every 5th frame of the very stream that it will be judged by.
Nobody can do that live; it bounds what specialising offline can give.
"""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ojd import distill
from ojd.errors import UserError
from ojd.formats.replacing import replacing
from ojd.models import pretrained
from ojd.models.student import Student
from ojd.pretraining import trainer
from ojd.pretraining.trainer import Recipe
from ojd.systems.jit import frozen
from ojd.types import Labels, Task
from ojd.updates.step import Tx

EVERY = 5  # frames from one that is learned from to the next
MAX_FRAMES = 6_000  # learned from; the paper's number
STUDENT = "student.safetensors"
_ALBUM, _ABOUT = "album", "about.json"
_EPOCHS, _MIN_STEPS = 10, 400
_REPORT_EVERY = 100


class Preparation(NamedTuple):
  """What a method may use before the first frame of its run."""

  student: Student
  class_names: tuple[str, ...]
  about: dict[str, Any]  # JSON; what decides the labelled frames
  num_frames: int  # of the run
  height: int
  width: int
  # Every n-th frame and its labels; frames without an answer are left out.
  labelled: Callable[[int], Iterator[tuple[np.ndarray, Labels]]]
  folder: pathlib.Path  # kept with the run; STUDENT is the result
  note_fn: Callable[[str], None]
  should_stop: Callable[[], bool]


class Album(NamedTuple):
  """Labelled frames on the disk; they need not fit into memory."""

  frames: np.ndarray  # [N, H, W, 3] uint8
  labels: Labels  # [N, H, W] each

  def batch(self, recipe: Recipe, step: int) -> tuple[np.ndarray, Labels]:
    """Random frames: a function of seed and step."""
    rng = np.random.default_rng([recipe.seed, 1, step])
    chosen = np.sort(rng.integers(len(self.frames), size=recipe.batch))
    classes, weights = (np.array(part[chosen]) for part in self.labels)
    return np.array(self.frames[chosen]), Labels(classes, weights)


def offline_oracle(
  student: Student, tx: Tx | None = None, *, task: Task | None = None
) -> distill.System:
  """The student trained on the stream beforehand, then frozen.

  The system is `frozen`; `prepare` trains its student.

  Args:
    student: init and apply of one frame, as it was prepared.
    tx: not used.
    task: as of `jit`.
  """
  return frozen(student, tx, task=task)


def make_recipe(preparation: Preparation, num_examples: int) -> Recipe:
  """Random batches, with the rate and step of online updates.

  Ten epochs: of the paper's 6,000 frames half an hour at its 30 ms a frame,
  where the authors let four GPUs train for an hour. A short stream gets 400
  steps.
  """
  batch = 4
  return Recipe(
    num_steps=max(_MIN_STEPS, -(-_EPOCHS * num_examples // batch)),
    batch=batch,
    optimizer="sgd",
    learning_rate=0.01,
    weight_decay=4e-5,
    height=preparation.height,
    width=preparation.width,
  )


def prepare(preparation: Preparation) -> bool:
  """Trains the student into `folder`; False where it was stopped before.

  The same call resumes a stopped one.
  """
  folder = preparation.folder
  album = collect(preparation)
  if album is None:
    return False
  recipe = make_recipe(preparation, len(album.frames))

  def report(made):
    if (made.step + 1) % _REPORT_EVERY == 0:
      preparation.note_fn(
        f"training beforehand: step {made.step + 1} of {recipe.num_steps}, "
        f"loss {made.loss:.3f}"
      )

  stops = []
  params = trainer.train(
    preparation.student,
    recipe,
    preparation.about,
    lambda step: album.batch(recipe, step),
    folder,
    report_fn=report,
    should_stop=lambda: preparation.should_stop() and not stops.append(1),
  )
  if stops:
    return False
  flat = pretrained.flatten(jax.device_get(params))
  about = {**preparation.about, **recipe._asdict()}
  found = pretrained.Pretrained(flat, preparation.class_names, about)
  # Nothing is lost: the run must replay bit for bit.
  pretrained.save(folder / STUDENT, found, np.float32)
  trainer.forget(folder)
  forget(folder)
  return True


def collect(preparation: Preparation, every: int = EVERY) -> Album | None:
  """Labelled frames, from the disk where they are there; None if stopped.

  Args:
    preparation: what to collect from.
    every: the least step from one to the next; more where there would be more
      than MAX_FRAMES.
  """
  folder = preparation.folder / _ALBUM
  folder.mkdir(parents=True, exist_ok=True)
  every = max(every, -(-preparation.num_frames // MAX_FRAMES))
  about = {**preparation.about, "every": every}
  about = json.loads(json.dumps(about))
  count = _read_count(folder / _ABOUT, about)
  if count is None:
    count = _fill(preparation, folder, every)
    if count is None:
      return None
    if not count:
      raise RuntimeError("no frame could be labelled beforehand")
    _write(folder / _ABOUT, {"count": count, "about": about})
  frames, *labels = (x[:count] for x in _arrays(preparation, folder, every))
  return Album(frames, Labels(*labels))


def forget(folder: pathlib.Path) -> None:
  """Deletes the frames collected."""
  folder = folder / _ALBUM
  for path in folder.glob("*"):
    path.unlink()
  folder.rmdir()


def _arrays(preparation, folder, every):
  """Frames, classes and weights as arrays of files."""
  size = preparation.height, preparation.width
  most = -(-preparation.num_frames // every)
  kinds = (
    ("frames", np.uint8, (3,)),
    ("classes", np.uint8, ()),
    ("weights", np.float32, ()),
  )
  for name, dtype, more in kinds:
    path = folder / f"{name}.raw"
    mode = "r+" if path.exists() else "w+"
    yield np.memmap(path, dtype, mode, shape=(most, *size, *more))


def _fill(preparation, folder, every):
  """Writes the frames; returns their number, or None if it was stopped."""
  for path in folder.glob("*"):  # of another size, perhaps
    path.unlink()
  frames, classes, weights = _arrays(preparation, folder, every)
  count = 0
  for frame, labels in preparation.labelled(every):
    if preparation.should_stop():
      return None
    frames[count] = frame
    classes[count], weights[count] = map(np.asarray, labels)
    count += 1
    if count % _REPORT_EVERY == 0:
      preparation.note_fn(f"labelled {count} of {len(frames)} frames to learn")
  return count


def _read_count(path, about):
  """The number of frames on the disk; None if they are incomplete."""
  try:
    content = json.loads(path.read_text())
    there, count = content["about"], int(content["count"])
  except (OSError, ValueError, KeyError, TypeError):
    return None
  if there != about:
    raise UserError(
      f"{path.parent} holds frames of another stream or teacher; take another "
      "--workdir"
    )
  return count


def _write(path, content):
  with replacing(path) as beside:
    beside.write_text(json.dumps(content))

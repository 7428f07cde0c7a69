"""A small training as a process of its own, one host of several perhaps.

    python -m tests.reference.parallel_training WORKDIR NUM_STEPS FAULT ...

trains once for each FAULT, going on where the last ended, and prints the losses
of the steps made each time, as JSON. Before a step this host is asked to end
(`stop=3`), fails (`fail=3`), dies (`die=3`) or goes on (`none`). The flags are
those of `experiments.parallel_flags`.
"""

import json
import os
import pathlib

import numpy as np
from jax.sharding import Mesh

from experiments import cli, parallel_flags
from ojd.models import student as student_lib
from ojd.pretraining import data_parallel, trainer
from ojd.run import compilation
from ojd.types import Labels
from tests.reference import small_run

RECIPE = trainer.Recipe(
  batch=4, optimizer="sgd", learning_rate=0.1, height=24, width=32
)


def make_batch(step: int) -> tuple[np.ndarray, Labels]:
  """Four frames of other weights: a mean over anything else would differ."""
  rng = np.random.default_rng(step)
  classes = rng.integers(0, 3, (4, 24, 32)).astype(np.uint8)
  frames = (100 * classes[..., None]).repeat(3, -1).astype(np.uint8)
  weights = np.ones(classes.shape, np.float32)
  weights[:3] = rng.uniform(0, 5, (3, 1, 1))
  return frames, Labels(classes, weights)


def train(
  folder: pathlib.Path, num_steps: int, mesh: Mesh | None, fault: str = "none"
) -> list[float]:
  """The losses of the steps made."""
  kind, _, when = fault.partition("=")
  rows = data_parallel.rows(mesh, RECIPE.batch)
  losses = []

  def batch_fn(step):
    if kind == "fail" and step == int(when):
      raise OSError("the disk is gone")
    if kind == "die" and step == int(when):
      os._exit(9)
    frames, labels = make_batch(step)
    return frames[rows], Labels(*(x[rows] for x in labels))

  trainer.train(
    student_lib.from_linen(small_run.SmallNet(3)),
    RECIPE._replace(num_steps=num_steps),
    {},
    batch_fn,
    folder,
    report_fn=lambda made: losses.append(made.loss),
    should_stop=lambda: kind == "stop" and len(losses) == int(when),
    mesh=mesh,
  )
  return losses


def main(words: list[str]) -> None:
  """Trains over the hosts that the flags name."""
  folder, num_steps, *faults = words
  compilation.enable_cache(compilation.default_cache())
  with parallel_flags.joined() as mesh:
    losses = [
      train(pathlib.Path(folder), int(num_steps), mesh, fault)
      for fault in faults
    ]
  print(json.dumps(losses))


if __name__ == "__main__":
  cli.run(main, takes_words=True)

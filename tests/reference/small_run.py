"""A short run of a small student, made by the runner as a person would."""

import dataclasses
import json
import pathlib

import flax.linen as nn
import jax.numpy as jnp

from ojd import specs
from ojd.models import layers
from ojd.run import config as config_lib
from ojd.run import runner, workdir
from ojd.run.config import RunConfig


class SmallNet(nn.Module):
  """Compiles in a second; has the layers that files of students must have."""

  num_classes: int

  @nn.compact
  def __call__(self, x):
    x = x / 128 - 1
    x = layers.Conv(8, (3, 3), name="decoder_conv1")(x)
    x = layers.NormRelu(name="norm")(x)
    logits = layers.Conv(self.num_classes, (1, 1), use_bias=True, name="logits")
    return logits(x).astype(jnp.float32)

  @classmethod
  def of(cls, num_classes):
    """The factory of a table."""
    return cls(num_classes)


# `ojd.models.student.MODELS` in the tests that make such runs.
MODELS = {"jitnet": specs.Entry(SmallNet.of)}


CONFIG = RunConfig(
  stream="synthetic:sports?num_frames=40",
  teacher="ground_truth",
  init="random",
  height=48,
  width=64,
  classes="person",
  delta_min=4,
  u_max=3,
  learning_rate=0.03,
  checkpoint_every=3,
  overlay=False,
  seed=2,
)


def config(path: pathlib.Path, base: RunConfig = CONFIG, **flags) -> RunConfig:
  """The base with other flags, less what a system of theirs refuses."""
  made = dataclasses.replace(base, **flags, workdir=str(path))
  made = config_lib.without_unused(made, flags.keys())
  config_lib.check(made)
  return made


def play(config, stop=None, notes=None, **options) -> runner.Outcome:
  """Runs a config; `stop`: after so many frames of now, or when it says so."""
  seen = []
  is_over = lambda: stop is not None and len(seen) >= stop
  return runner.run(
    config,
    "a test",
    should_stop=stop if callable(stop) else is_over,
    progress_fn=seen.append,
    note_fn=([] if notes is None else notes).append,
    **options,
  )


def run(path, base=CONFIG, stop=None, notes=None, **flags) -> runner.Outcome:
  """Runs with other flags in `path`."""
  return play(config(path, base, **flags), stop, notes)


def counts(summary: dict) -> dict:
  """A summary without what a clock or a stop decides."""
  apart = ("seconds", "fps", "ms", "first_frame_seconds", "speedup_measured")
  apart += ("interrupted", "resumed", "peak_memory_mb")
  return {k: v for k, v in summary.items() if k not in apart}


def lines(path: pathlib.Path, start=0) -> list[dict]:
  """What a run wrote of its frames from one on, without the times."""
  text = (path / workdir.METRICS).read_text()
  return [
    {k: v for k, v in row.items() if not k.startswith("ms_")}
    for row in map(json.loads, text.splitlines())
    if row["t"] >= start
  ]

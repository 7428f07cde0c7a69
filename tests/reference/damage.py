"""Damage to files at random, and what may come out of a damaged input.

  python -m tests.reference.damage FOLDER COUNT

plays each video of FOLDER, damaged in COUNT ways, in a process that may die of
it. Prints what it tries, so that the last line tells what killed it.
"""

import functools
import itertools
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from ojd.errors import UserError
from ojd.streams import base
from ojd.types import Sample

MOST_SAMPLES = 2000  # a damaged head may promise more than the file holds
_MAX_SECONDS = 10


def edit(rng: np.random.Generator, content: bytes) -> bytes:
  """Flips, overwrites, cuts out, doubles or cuts off some of the bytes."""
  broken = bytearray(content)
  for _ in range(rng.integers(1, 8)):
    begin = int(rng.integers(0, max(len(broken), 1)))
    if rng.random() < 0.4:  # the heads are where most is decided
      begin %= rng.choice([64, 600])
    end = begin + int(rng.integers(1, 40))
    match rng.integers(0, 6):
      case 0 | 1:
        broken[begin : begin + 1] = rng.bytes(1)
      case 2:
        broken[begin:end] = rng.bytes(end - begin)
      case 3:
        del broken[begin:end]
      case 4:
        broken[begin:begin] = broken[begin:end]
      case 5 if len(broken) > 1200 and rng.random() < 0.3:
        del broken[max(begin, 600) :]
  return bytes(broken)


def play(open_stream: Callable[[], base.Stream]) -> str:
  """Plays an input to its end; what is neither answer nor refusal raises."""
  try:
    stream = open_stream()
    samples = list(itertools.islice(stream.read(), MOST_SAMPLES))
  except UserError as error:
    assert str(error) and "\n" not in str(error) and len(str(error)) < 2000
    return "refused"
  for t, sample in enumerate(samples):
    assert type(sample) is Sample and sample.t == t
    check(sample, stream.spec)
  if len(samples) < MOST_SAMPLES:
    assert stream.spec.num_frames in (None, len(samples))
  stamps = [s.seconds for s in samples if s.seconds is not None]
  assert stamps == sorted(stamps) and np.isfinite(stamps).all()
  return "broken" if any(s.frame is None for s in samples) else "whole"


def check(sample: Sample, spec: base.StreamSpec) -> None:
  """A sample is whole or says why not."""
  assert (sample.frame is None) == bool(sample.problem)
  if sample.frame is None:
    assert sample.truth is None and "\n" not in sample.problem
    return
  assert sample.frame.shape == (spec.height, spec.width, 3)
  assert sample.frame.dtype == np.uint8
  # Of Cityscapes most frames have no labels.
  may_lack = spec.identity.get("kind") == "cityscapes"
  if spec.class_names and not (may_lack and sample.truth is None):
    assert sample.truth.shape == (spec.height, spec.width)
    assert sample.truth.dtype == np.uint8
    seen = set(np.unique(sample.truth).tolist()) - {255}
    assert not seen or max(seen) < len(spec.class_names)
  else:
    assert sample.truth is None


def main(folder: str, count: str) -> None:
  """Damages and plays each file of a folder."""
  with tempfile.TemporaryDirectory() as scratch:
    for path in sorted(pathlib.Path(folder).iterdir()):
      for i in range(int(count)):
        print(path.name, i, flush=True)
        broken = pathlib.Path(scratch) / path.name
        rng = np.random.default_rng([0, i])
        broken.write_bytes(edit(rng, path.read_bytes()))
        begin = time.monotonic()
        outcome = play(functools.partial(base.open_stream, str(broken), 32, 48))
        assert time.monotonic() - begin < _MAX_SECONDS
        print(" ", outcome, flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])

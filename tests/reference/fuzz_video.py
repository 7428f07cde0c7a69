"""Feeds broken video files to the reader, in a process that may die of it.

  python -m tests.reference.fuzz_video FOLDER COUNT SEED

Each file of FOLDER is broken in COUNT ways. Prints what it tries, so that the
last line tells what killed it.
"""

import pathlib
import sys
import tempfile
import time

import numpy as np

from ojd.errors import UserError
from ojd.streams import base

MAX_SECONDS = 10


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
  """Flips, overwrites, cuts out, doubles or cuts off some of the bytes."""
  broken = bytearray(content)
  for _ in range(rng.integers(1, 8)):
    begin = int(rng.integers(0, len(broken)))
    if rng.random() < 0.4:  # the heads are where most is decided
      begin %= 600
    length = int(rng.integers(1, 40))
    match rng.integers(0, 6):
      case 0 | 1:
        broken[begin : begin + 1] = rng.bytes(1)
      case 2:
        broken[begin : begin + length] = rng.bytes(length)
      case 3:
        del broken[begin : begin + length]
      case 4:
        broken[begin:begin] = broken[begin : begin + length]
      case 5 if len(broken) > 1200 and rng.random() < 0.3:
        del broken[max(begin, 600) :]
  return bytes(broken)


def check(path: pathlib.Path) -> str:
  """Reads a file to its end; anything but an answer or a refusal raises."""
  try:
    stream = base.open_stream(str(path), 32, 48)
  except UserError as error:
    assert "\n" not in str(error)
    return "refused"
  num, last = 0, 0.0
  for sample in stream.read():
    assert sample.t == num
    num += 1
    assert (sample.frame is None) == bool(sample.problem)
    assert sample.frame is None or sample.frame.shape == (32, 48, 3)
    if sample.seconds is not None:
      assert last <= sample.seconds < float("inf")
      last = sample.seconds
    if num > 2000:  # a header may promise more than anyone would wait for
      return "long"
  assert stream.spec.num_frames in (None, num)
  return "played"


def main(folder: str, count: str, seed: str) -> None:
  """Breaks and reads each file of a folder."""
  with tempfile.TemporaryDirectory() as scratch:
    for path in sorted(pathlib.Path(folder).iterdir()):
      whole = path.read_bytes()
      for i in range(int(count)):
        name = f"{path.name} {seed} {i}"
        print(name, flush=True)
        rng = np.random.default_rng([int(seed), i])
        broken = pathlib.Path(scratch) / path.name
        broken.write_bytes(mutate(whole, rng))
        begin = time.monotonic()
        outcome = check(broken)
        seconds = time.monotonic() - begin
        assert seconds < MAX_SECONDS, f"{name} takes {seconds:.1f} s"
        print(" ", outcome, flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])

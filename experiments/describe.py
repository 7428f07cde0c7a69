r"""Prints a student's layers, parameters, work and message sizes.

    python -m experiments.describe --model=jitnet --num_classes=23 \
        --height=720 --width=1280

Takes seconds. With these flags: 752,383 parameters and 15.157 GFLOP.
"""

from absl import flags

from experiments import cli
from ojd.errors import RequestError
from ojd.models import describe, student
from ojd.streams.base import MAX_SIDE, MIN_SIDE
from ojd.types import MAX_CLASSES

_MODEL = flags.DEFINE_string("model", "jitnet", ", ".join(student.MODELS))
_NUM_CLASSES = flags.DEFINE_integer("num_classes", 23, "background included")
_MULTIPLIER = flags.DEFINE_float("width_multiplier", 0.5, "of all the widths")
_NUM_UNITS = flags.DEFINE_integer("num_units", 1, "residual units a block")
_HEIGHT = flags.DEFINE_integer("height", 720, "of a frame")
_WIDTH = flags.DEFINE_integer("width", 1280, "of a frame")
_SMOKE = flags.DEFINE_bool("smoke", False, "a frame of 96x160")


def _check():
  if _MODEL.value not in student.MODELS:
    known = ", ".join(student.MODELS)
    raise RequestError(f"--model={_MODEL.value}: unknown; known are {known}")
  for flag, low, high in (
    (_NUM_CLASSES, 2, MAX_CLASSES),
    (_MULTIPLIER, 0.01, 8.0),
    (_NUM_UNITS, 1, 16),
    (_HEIGHT, MIN_SIDE, MAX_SIDE),
    (_WIDTH, MIN_SIDE, MAX_SIDE),
  ):
    if not low <= flag.value <= high:
      raise RequestError(f"--{flag.name}={flag.value}: from {low} to {high}")


def _print_table(rows):
  size = lambda shape: "x".join(map(str, shape))
  line = "{:<26} {:>14} {:>14} {:>8} {:>9} {:>9}"
  print(line.format("layer", "in", "out", "kernel", "params", "MMAC"))
  for row in rows:
    macs = f"{row.macs / 1e6:,.1f}" if row.macs else ""
    shapes = size(row.shape_in), size(row.shape_out)
    params = f"{row.num_params:,}"
    print(line.format(row.name, *shapes, row.kernel, params, macs))


def main() -> None:
  """Traces the model in its published order and prints what it found."""
  _check()
  height, width = _HEIGHT.value, _WIDTH.value
  if _SMOKE.value:
    height, width = 96, 160
  model = student.MODELS[_MODEL.value](
    num_classes=_NUM_CLASSES.value,
    width=_MULTIPLIER.value,
    num_units=_NUM_UNITS.value,
  )
  table = lambda model: describe.layer_table(model, height, width)
  rows = table(model.clone(resize_logits=False))
  _print_table(rows)
  params, gflop = describe.num_params(rows), describe.gflop(rows)
  print(f"\n{params:,} parameters")
  print(f"{gflop:.3f} GFLOP (2 x {gflop / 2:.3f} GMAC, convolutions)")
  print(
    f"{describe.gflop(table(model)):.3f} GFLOP as run: the logits are made "
    "before the last resize, for the same numbers"
  )
  frame = height * width * 3
  print(
    f"messages: all parameters {4 * params / 1e6:.2f} MB as float32, "
    f"{2 * params / 1e6:.2f} MB as float16; a raw frame {frame / 1e6:.2f} MB"
  )


if __name__ == "__main__":
  cli.run(main)

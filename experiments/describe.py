r"""Prints a student's layers, parameters, work and message sizes.

    python -m experiments.describe --model=jitnet --num_classes=23 \
        --height=720 --width=1280
    python -m experiments.describe --model=shadow --num_classes=9
    python -m experiments.describe --model=ddrnet23_slim --num_classes=19 \
        --height=1024 --width=2048

Takes seconds. With the first: 752,383 parameters and 15.157 GFLOP; with the
second 483,873 parameters, 103,465 of which travel as 413,860 bytes; with the
third 36.281 GMAC, with `ddrnet23` 143.061, with `hrnet_w18_small` 76.857. A
kernel is printed as "3x3 / 2" where its stride is 2, as "3x3 * 6" where its
taps are 6 pixels apart.
"""

from absl import flags

from experiments import cli
from ojd.errors import RequestError
from ojd.models import describe, student
from ojd.streams.base import MAX_SIDE, MIN_SIDE
from ojd.types import MAX_CLASSES

_MODEL = flags.DEFINE_string("model", "jitnet", ", ".join(student.MODELS))
_NUM_CLASSES = flags.DEFINE_integer("num_classes", 23, "background included")
_MULTIPLIER = flags.DEFINE_float(
  "width_multiplier", None, "of all the widths; empty: the network's own"
)
_NUM_UNITS = flags.DEFINE_integer(
  "num_units", 1, "residual units a block, of jitnet"
)
_HEIGHT = flags.DEFINE_integer("height", 720, "of a frame")
_WIDTH = flags.DEFINE_integer("width", 1280, "of a frame")
_SMOKE = flags.DEFINE_bool("smoke", False, "a frame of 96x160")


def _check():
  student.check_model(_MODEL.value, _MULTIPLIER.value)
  if _MODEL.value != "jitnet" and _NUM_UNITS.value != 1:
    raise RequestError(
      f"--num_units={_NUM_UNITS.value}: means nothing to --model={_MODEL.value}"
    )
  for flag, low, high in (
    (_NUM_CLASSES, 2, MAX_CLASSES),
    (_NUM_UNITS, 1, 16),
    (_HEIGHT, MIN_SIDE, MAX_SIDE),
    (_WIDTH, MIN_SIDE, MAX_SIDE),
  ):
    if not low <= flag.value <= high:
      raise RequestError(f"--{flag.name}={flag.value}: from {low} to {high}")


def _print_table(rows):
  size = lambda shape: "x".join(map(str, shape))
  longest = max(len(row.name) for row in rows)
  line = f"{{:<{longest}}} {{:>14}} {{:>14}} {{:>8}} {{:>9}} {{:>9}}"
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
  model = student.make_model(
    _MODEL.value, _NUM_CLASSES.value, _MULTIPLIER.value
  )
  if _MODEL.value == "jitnet":
    model = model.clone(num_units=_NUM_UNITS.value)
  published = model
  if hasattr(model, "resize_logits"):
    published = model.clone(resize_logits=False)
  table = lambda model: describe.layer_table(model, height, width)
  rows = table(published)
  _print_table(rows)
  params, gflop = describe.num_params(rows), describe.gflop(rows)
  partial = describe.num_partial(rows)
  print(f"\n{params:,} parameters")
  print(
    f"{partial:,} of them, {partial / params:.1%}, train with --update=partial"
  )
  print(f"{gflop:.3f} GFLOP (2 x {gflop / 2:.3f} GMAC, convolutions)")
  if published is not model:
    print(
      f"{describe.gflop(table(model)):.3f} GFLOP as run: the logits are made "
      "before the last resize, for the same numbers"
    )
  frame = height * width * 3
  print(
    f"messages, in bytes: all parameters {4 * params:,} as float32 and "
    f"{2 * params:,} as float16, those of --update=partial {4 * partial:,}; "
    f"a raw frame {frame:,}, its class map {frame // 3:,}"
  )


if __name__ == "__main__":
  cli.run(main)

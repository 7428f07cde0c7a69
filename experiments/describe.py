r"""Prints a student's layers, parameters, work and message sizes.

    python -m experiments.describe --model=jitnet --num_classes=23 \
        --height=720 --width=1280
    python -m experiments.describe --model=shadow --num_classes=9
    python -m experiments.describe --model=ddrnet23_slim --num_classes=19 \
        --height=1024 --width=2048 --system=delta:gamma=4:refresh_every=3

It takes seconds. The first prints 752,383 parameters and 15.157 GFLOP, the
second 483,873 parameters, 103,465 of which travel as 413,860 bytes, and the
third 36.281 GMAC (with `ddrnet23` 143.061, with `hrnet_w18_small` 76.857). With
--system=delta it prints beside every layer the cost of the pair that replaces
it on the frames between whole ones, and the mean of both. A kernel
is printed as "3x3 / 2" where its stride is 2, as "3x3 * 6" where its taps are
6 pixels apart.
"""

from absl import flags

from experiments import cli
from ojd import specs, systems
from ojd.errors import UserError
from ojd.models import describe, student
from ojd.models.delta import changes, conversion
from ojd.streams.base import MAX_SIDE, MIN_SIDE
from ojd.types import MAX_CLASSES

_MODEL = flags.DEFINE_string(
  "model", "jitnet", "NAME[:OPTION=VALUE]...\n" + specs.describe(student.MODELS)
)
_NUM_CLASSES = flags.DEFINE_integer(
  "num_classes", 23, "number of classes, with the background"
)
_HEIGHT = flags.DEFINE_integer("height", 720, "height of a frame")
_WIDTH = flags.DEFINE_integer("width", 1280, "width of a frame")
_SYSTEM = flags.DEFINE_string(
  "system",
  "",
  "delta[:gamma=N][:policy=out|min][:refresh_every=N]: also print its work on "
  "the frames between whole ones; empty: only the student",
)
_SMOKE = flags.DEFINE_bool("smoke", False, "use a frame of 96x160")
# Options of --system=delta.
_DECIDING = ("gamma", "policy", "refresh_every")


def _check():
  for flag, low, high in (
    (_NUM_CLASSES, 2, MAX_CLASSES),
    (_HEIGHT, MIN_SIDE, MAX_SIDE),
    (_WIDTH, MIN_SIDE, MAX_SIDE),
  ):
    if not low <= flag.value <= high:
      raise UserError(f"--{flag.name}={flag.value}: from {low} to {high}")
  if _SYSTEM.value:
    _delta_options()


def _delta_options():
  """The options of --system that decide what work there is between frames."""
  bound = systems.bind(_SYSTEM.value)
  unused = bound.given - set(_DECIDING)
  if bound.name != "delta" or unused:
    raise UserError(
      f"--system={_SYSTEM.value}: only the work of delta is printed by layer, "
      f"and its options are {', '.join(_DECIDING)}"
    )
  return [bound.options[name] for name in _DECIDING]


def _print_table(rows, between):
  size = lambda shape: "x".join(map(str, shape))
  longest = max(len(row.name) for row in rows)
  line = f"{{:<{longest}}} {{:>14}} {{:>14}} {{:>8}} {{:>9}} {{:>9}}"
  last = " {:>9}".format("between") if between else ""
  print(line.format("layer", "in", "out", "kernel", "params", "MMAC") + last)
  for row in rows:
    macs = f"{row.macs / 1e6:,.1f}" if row.macs else ""
    shapes = size(row.shape_in), size(row.shape_out)
    params = f"{row.num_params:,}"
    last = between.get(row.name)
    last = f" {last / 1e6:>9,.1f}" if row.macs and last is not None else ""
    print(line.format(row.name, *shapes, row.kernel, params, macs) + last)


def _work_between(model, height, width):
  """By layer multiply-accumulates between key frames; and a line of it all."""
  if not _SYSTEM.value:
    return {}, ""
  of_student = student.from_linen(model)
  gamma, policy, interval = _delta_options()
  pair = changes.pair(gamma=gamma, policy=policy)
  inner = conversion.converted(conversion.trace(of_student))
  changes.check_gamma(gamma, policy, inner)
  change_of = changes.where_it_saves(pair)
  rows = changes.work_table(of_student, change_of, height, width)
  cost = changes.mean_cost(rows, interval)
  line = (
    f"--system={_SYSTEM.value}: {cost.delta:.3f} GMAC between key frames, "
    f"{cost.delta / cost.key:.1%} of theirs; with one every "
    f"{interval} frames {cost.amortised:.3f} a frame, "
    f"{cost.key / cost.amortised:.2f} times fewer"
  )
  return {row.name: row.delta for row in rows}, line


def main() -> None:
  """Traces the model in its published order and prints what it found."""
  _check()
  height, width = _HEIGHT.value, _WIDTH.value
  if _SMOKE.value:
    height, width = 96, 160
  model = student.network(_MODEL.value, _NUM_CLASSES.value)
  published = model
  if hasattr(model, "resize_logits"):
    published = model.clone(resize_logits=False)
  table = lambda model: describe.layer_table(model, height, width)
  rows = table(published)
  between, line = _work_between(published, height, width)
  _print_table(rows, between)
  params, gflop = describe.num_params(rows), describe.gflop(rows)
  partial = describe.num_partial(rows)
  print(f"\n{params:,} parameters")
  print(
    f"{partial:,} of them, {partial / params:.1%}, train with --update=partial"
  )
  print(f"{gflop:.3f} GFLOP (2 x {gflop / 2:.3f} GMAC, convolutions)")
  if line:
    print(line)
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

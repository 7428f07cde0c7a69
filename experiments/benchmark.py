r"""Measures speed, as ratios of two things timed in turn in one run.

    python -m experiments.benchmark --list
    python -m experiments.benchmark --what=all --json=benchmark.json
    python -m experiments.benchmark --what=adapt --size=256x448
    python -m experiments.benchmark --smoke

All takes about half an hour on two cores. A ratio is ours over the opponent's:
1 is level, lower is better. `--list` says what each entry measures, and which
ratio is expected. `flop` and `copy` are shares of what a matrix product and a
copy reach on the same device. `--json` writes a list of objects with "name",
"ratio", "ms", "opponent_ms", "spread" (90th - 10th percentile of the ratios
over their median) and "note". --smoke takes half a minute: small frames, few
repetitions and, unless --what is given, three quick entries. On a GPU the
student and torch run in bfloat16, unless --precision says otherwise:

    python -m experiments.benchmark --what=student,update,adapt,streams \
        --json=gpu.json --profile=DIR
"""

import json
import os
import pathlib

import jax
from absl import flags

from experiments import benchmarks, cli
from experiments.benchmarks import measure
from ojd.errors import UserError
from ojd.models.student import PRECISIONS
from ojd.run import compilation
from ojd.streams import base as streams

_SMOKE = flags.DEFINE_bool(
  "smoke", False, "measure small sizes with few repetitions"
)
_LIST = flags.DEFINE_bool("list", False, "print what the entries measure")
_SIZE = flags.DEFINE_string(
  "size", None, "size of the frames as HxW; empty: each entry's own"
)
_JSON = flags.DEFINE_string("json", None, "file to write the results to")
_BACKEND = flags.DEFINE_enum(
  "backend",
  None,
  ["cpu", "gpu"],
  "where to measure; empty: on a GPU if there is one",
)
_PRECISION = flags.DEFINE_enum(
  "precision",
  None,
  list(PRECISIONS),
  "what the student and torch compute in; empty: bfloat16 on a GPU, float32 "
  "elsewhere",
)
_PROFILE = flags.DEFINE_string(
  "profile", None, "write traces of what is compared to this folder, for XProf"
)
_REPEATS = flags.DEFINE_integer("repeats", 7, "pairs timed for a result")
_WHAT = flags.DEFINE_list(
  "what", None, "of all (the default), " + ", ".join(benchmarks.ENTRIES)
)

_SMOKE_SIZE, _SMOKE_REPEATS = (64, 96), 3
_SMOKE_ENTRIES = ("adapt", "draw", "labels")


def _cases():
  """(function, size) of the entries asked for."""
  all_names = benchmarks.ENTRIES
  names = _WHAT.value or (_SMOKE_ENTRIES if _SMOKE.value else all_names)
  names = all_names if names == ["all"] else names
  if unknown := [name for name in names if name not in all_names]:
    raise UserError(
      f"--what={unknown[0]}: unknown; known are all, {', '.join(all_names)}"
    )
  asked = _SMOKE_SIZE if _SMOKE.value else None
  asked = _parse_size(_SIZE.value) if _SIZE.value else asked
  cases = [
    (case.fn, asked or case.size)
    for name in names
    for case in benchmarks.load(name).CASES
    if not (_SMOKE.value and case.is_long)
  ]
  return list(dict.fromkeys(cases))  # with one size, some are the same


def _parse_size(text):
  height, x, width = text.partition("x")
  if not (x and height.isdigit() and width.isdigit()):
    raise UserError(f"--size={text}: HEIGHTxWIDTH, as 720x1280")
  size = int(height), int(width)
  if not all(streams.MIN_SIDE <= side <= streams.MAX_SIDE for side in size):
    raise UserError(
      f"--size={text}: sides of {streams.MIN_SIDE} to {streams.MAX_SIDE}"
    )
  return size


def _prepare_backend():
  """Before jax looks for devices: which, and a CPU's cores one by one."""
  if _BACKEND.value:
    platform = {"gpu": "cuda"}.get(_BACKEND.value, _BACKEND.value)
    jax.config.update("jax_platforms", platform)
  jax.config.update("jax_num_cpu_devices", os.cpu_count())
  try:
    jax.devices()
  except (RuntimeError, AssertionError):  # jax raises either
    raise UserError(
      f"--backend={_BACKEND.value}: no such device here"
    ) from None


_LINE = "{:<33} {:>7} {:>9} {:>12} {:>7} {:>6} {:>6}  {}"


def _row(f):
  times = ("" if x is None else f"{x:.2f}" for x in (f.ms, f.opponent_ms))
  shares = (
    "" if x is None else f"{x:.0%}" for x in (f.flop_share, f.byte_share)
  )
  cells = (f.name, f"{f.ratio:.3f}", *times, f"{f.spread:.1%}", *shares)
  return _LINE.format(*cells, f.note)


def _measure_all(cases):
  """Yields a result for each case whose opponent is available here."""
  is_gpu = jax.default_backend() == "gpu"
  for fn, size in cases:
    setting = measure.Setting(
      size,
      _SMOKE_REPEATS if _SMOKE.value else _REPEATS.value,
      _PRECISION.value or ("bfloat16" if is_gpu else "float32"),
      pathlib.Path(_PROFILE.value) if _PROFILE.value else None,
    )
    try:
      yield fn(setting)
    except measure.Unavailable as error:
      print(f"left out: {error}", flush=True)


def main() -> None:
  """Measures what was asked for, printing each result as it is known."""
  if _LIST.value:
    for name in benchmarks.ENTRIES:
      print(f"--what={name}: {benchmarks.load(name).__doc__}")
    return
  if _REPEATS.value < 1:
    raise UserError(f"--repeats={_REPEATS.value}: at least 1")
  cases = _cases()
  _prepare_backend()
  compilation.enable_cache(compilation.default_cache())
  print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores")
  head = ("name", "ratio", "ms", "opponent ms", "spread", "flop", "copy", "")
  print(_LINE.format(*head))
  results = []
  for result in _measure_all(cases):
    results.append(result._asdict())
    print(_row(result), flush=True)
  if _JSON.value:
    try:
      pathlib.Path(_JSON.value).write_text(json.dumps(results, indent=2) + "\n")
    except OSError as error:
      raise UserError(f"--json={_JSON.value}: {error.strerror}") from None


if __name__ == "__main__":
  cli.run(main)

"""Measures what speed was promised, as ratios side by side in one run.

    python -m experiments.benchmark --what=all --json=benchmark.json
    python -m experiments.benchmark --what=adapt --size=256x448

All takes about half an hour on two cores. A ratio is ours over the opponent's:
lower is better. `flop` and `copy` are shares of what a matrix product and a
copy reach on the same device. On a GPU the same command takes bfloat16 for
student and torch, unless --precision says otherwise; its table is that of

    python -m experiments.benchmark --what=student,update,adapt,streams \\
        --json=gpu.json --profile=DIR

    student_forward_vs_torch, student_forward_vs_torch_compile
                         a frame's classes, by the Flax student and by the same
                         network in torch, channels last (at most 1 at 720x1280)
    key_norm_vs_frame_norm
                         the same pass with --norm=key_frame, over --norm=frame
    update_vs_torch, update_vs_torch_compile
                         a gradient step by both (at most 1 at 720x1280)
    mobilenet_forward_vs_torch, mobilenet_update_vs_torch
                         the same of --model=mobilenet_v2
    adapt_vs_updates     eight updates in the lax loop over eight single ones
                         (at most 1.1)
    streams_S_vs_1       a frame of one of S streams that are one program, over
                         a frame of one alone (at most 0.67 on two cores, 0.125
                         on a GPU, at 256x448)
    loop_overhead        host time per frame beyond predict, over predict
                         (below 0.1 at 720x1280)
    drawing_vs_student   drawing a frame of the synthetic street, frame and
                         truth, over the student's forward pass (below 1 at
                         192x320)
    warm_vs_cold_start   from the start of a run to its first answer, second
                         time over first, eight updates on the first frame
                         and drawing its world included, the teacher free
                         (warm below 3000 ms)
    memory_vs_1500_mb    the most memory that a run without its teacher and
                         without an overlay holds, over 1500 MB (below 1 at
                         720x1280)
    memory_growth        the same after 3,000 frames, over after 300
    checkpoint_share     time that the loop spends on checkpoints, over that of
                         the whole run, with the default interval (below 0.01
                         at 192x320)
    restore_vs_save      reading a checkpoint over writing one
    trajectory_share     bytes of it per key frame over a class map (below 0.02)
    replay_vs_live       telling a run again over the run itself (below 1)
    decode_vs_student, resize_vs_student
                         decoding a frame of an H.264 file, and resizing it to
                         half the sides too, over the student's answer to that
    read_share           what of this the loop waits for, decoding ahead, over
                         the same (below 0.1 at 720x1280)
    with_SINK_vs_without
                         the whole loop with overlay, png_masks, mask_video,
                         boxes or areas, over the loop without
    edge_mask_vs_entropy bytes that tell which twentieth of all coordinates
                         travels, over their entropy (at most 1.05)
    edge_partial_vs_full an update of ShadowTutor's over one of all parameters
    edge_traffic_vs_every_frame
                         what ShadowTutor sends up and down, over every frame up
                         and its class map down (0.05 as published)
    edge_at_N_mbps_vs_remote
                         a frame of ShadowTutor on a slow device, over a frame
                         sent to the teacher and answered (0.33 as published)
    device_up_vs_alone, device_throttled_vs_alone, device_killed_vs_alone
                         a frame of a device over loopback, with a server, one
                         behind a line of a megabit, one that is killed, over a
                         frame without any; for the first beside a core that is
                         as busy (at most 1.05)
    deltaG_vs_whole, deltaG_vs_whole_MODEL, skip_vs_whole
                         a frame between key frames over a whole one, of which a
                         tenth has changed; the note has the ratio of the work
    fleet_S_vs_processes a frame of one of S streams in one process, over one of
                         as many processes that begin together (at most 1)
    fleet_ray_vs_none    the same of 8 streams on a Ray, over no Ray
    fleet_recovery_vs_start
                         from the kill of an actor until all its streams are
                         farther than then, over the start of the fleet
    follow_vs_update     making the pairs of changes anew, over an update
    labels_vs_student    30 instances of 28x28 masks made labels, over the
                         student's forward pass (below 15 ms at 720x1280)
    student_vs_mask_rcnn, student_vs_mask_rcnn_tiny
                         the student's forward pass over the teacher's answer,
                         at 720x1280 and at 192x320; mask_rcnn has random
                         weights and finds nothing: the least it takes
"""

import functools
import json
import os
import pathlib
import tempfile
import time

import jax
import numpy as np
from absl import flags
from PIL import Image

from experiments import (
  checkpoint_figures,
  cli,
  delta_figures,
  device_figures,
  edge_figures,
  fleet_figures,
  io_figures,
  lane_figures,
  process_figures,
  speed_figures,
)
from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.run import compilation, job, measure, runner
from ojd.run.config import RunConfig
from ojd.streams import base as streams
from ojd.teachers import base as teachers
from ojd.types import Instances

_SMOKE = flags.DEFINE_bool("smoke", False, "small sizes, few repetitions")
_SIZE = flags.DEFINE_string("size", None, "HxW; empty: each figure's own")
_JSON = flags.DEFINE_string("json", None, "file to write the figures to")
_BACKEND = flags.DEFINE_enum(
  "backend", None, ["cpu", "gpu"], "empty: a GPU where there is one"
)
_PROFILE = flags.DEFINE_string(
  "profile", None, "folder for traces of what is compared, for XProf"
)
_REPEATS = flags.DEFINE_integer("repeats", 7, "pairs timed for a figure")


def run_loop(size, repeats):
  """The host loop with decoding, judging and metrics against predict alone."""
  num_frames = 4 * repeats
  with tempfile.TemporaryDirectory() as folder:
    stream = pathlib.Path(folder) / "stream"
    _write_folder(stream, size, num_frames)
    made = job.make_job(
      RunConfig(
        stream=f"folder:{stream}",
        teacher="ground_truth",
        system="frozen",
        init="random",
        overlay=False,
      )
    )
    compiled = job.compile_system(made.system, *size, seed=0)
    pairs = [
      (
        _loop_ms(made, compiled, pathlib.Path(folder)),
        _predict_ms(compiled, made),
      )
      for _ in range(repeats + 1)
    ]
  pairs = np.array(pairs[1:])  # the first warms up
  pairs[:, 0] -= pairs[:, 1]
  note = f"host time beyond predict, and predict, {size[0]}x{size[1]} JPEG"
  return measure.figure("loop_overhead", pairs, note)


def _loop_ms(made, compiled, path):
  """Of a frame in the host loop, from the stream to the metrics line."""
  loop = runner.Loop(made, path, compiled=compiled)
  loop.run()
  seconds = sum(s for n, s in loop.stages.seconds.items() if n != "compile")
  return 1e3 * seconds / loop.stats.num_frames


def _predict_ms(compiled, made):
  """Of `predict` alone, with nothing beside it."""
  state, spent = compiled.init(), []
  frame = next(iter(made.stream.read())).frame
  for _ in range(made.stream.spec.num_frames):
    start = time.perf_counter()
    state, classes = compiled.predict(state, frame)
    jax.block_until_ready(classes)
    spent.append(1e3 * (time.perf_counter() - start))
  return np.mean(spent)


def _write_folder(path, size, num_frames):
  """A labelled folder of synthetic frames."""
  world = streams.open_stream("synthetic:street", *size)
  (path / "frames").mkdir(parents=True)
  (path / "masks").mkdir()
  for sample in world.read():
    if sample.t == num_frames:
      break
    name = f"{sample.t:04d}"
    Image.fromarray(sample.frame).save(path / "frames" / f"{name}.jpg")
    Image.fromarray(sample.truth).save(path / "masks" / f"{name}.png")
  classes = {str(i): n for i, n in enumerate(world.spec.class_names)}
  (path / "stream.json").write_text(json.dumps({"fps": 25, "classes": classes}))


def draw(size, repeats):
  """Drawing a synthetic frame against the student's forward pass."""
  world = streams.open_stream("synthetic:street", *size)
  samples = iter(world.read())
  student, params, frame, _ = speed_figures.inputs(size)
  apply = jax.jit(student.apply)
  return measure.compare(
    "drawing_vs_student",
    lambda: next(samples).frame,
    lambda: apply(params, frame),
    repeats=8 * repeats,
    note=f"a frame drawn and a forward pass, {size[0]}x{size[1]}",
  )


def make_labels(size, repeats):
  """Labels of a detector's answer against the student's forward pass."""
  rng = np.random.default_rng(0)
  corners = rng.uniform(0, 0.8, (30, 2)) * size
  sides = rng.uniform(0.05, 0.5, (30, 2)) * size
  instances = Instances(
    np.concatenate([corners, corners + sides], 1).astype(np.float32),
    np.ones(30, np.float32),
    rng.integers(1, speed_figures.NUM_CLASSES, 30).astype(np.int32),
    rng.random((30, 28, 28), np.float32),
  )
  names = (
    "background",
    *(f"class {i}" for i in range(1, speed_figures.NUM_CLASSES)),
  )
  groups = labels_lib.parse_groups("", names)
  student, params, frame, _ = speed_figures.inputs(size)
  apply = jax.jit(student.apply)
  return measure.compare(
    "labels_vs_student",
    lambda: labels_lib.from_instances(instances, groups, *size),
    lambda: apply(params, frame),
    repeats=repeats,
    note=f"30 instances made labels and a forward pass, {size[0]}x{size[1]}",
  )


def teacher(name, weights, size, repeats):
  """The student's forward pass against a teacher's whole answer."""
  request = teachers.TeacherRequest((), *size, {}, weights=weights)
  made = teachers.make_teacher(name, request)
  world = streams.open_stream("synthetic:street", *size)
  sample = next(iter(world.read()))
  student, params, frame, _ = speed_figures.inputs(size)
  apply = jax.jit(student.apply)
  return measure.compare(
    f"student_vs_{name}",
    lambda: apply(params, frame),
    lambda: made(sample).masks,
    repeats=max(1, repeats // 2),
    note=f"a forward pass and a teacher's answer, {size[0]}x{size[1]}",
  )


_BIG, _MIDDLE, _SMALL, _TINY = (720, 1280), (256, 448), (192, 320), (96, 160)
_SMOKE_SIZE = (64, 96)
_mask_rcnn = functools.partial(teacher, "mask_rcnn", "random")
_mask_rcnn_tiny = functools.partial(teacher, "mask_rcnn_tiny", "")

# name -> functions and the size of each
FIGURES = {
  "student": [
    (speed_figures.forward, _BIG),
    (speed_figures.forward_compiled, _BIG),
    (speed_figures.held, _BIG),
  ],
  "update": [
    (speed_figures.update, _BIG),
    (speed_figures.update_compiled, _BIG),
  ],
  "mobilenet": [
    (speed_figures.mobilenet_forward, _SMALL),
    (speed_figures.mobilenet_update, _SMALL),
  ],
  "adapt": [(speed_figures.adapt, _MIDDLE), (speed_figures.adapt, _BIG)],
  "streams": [(fn, _MIDDLE) for fn in lane_figures.ALL],
  "run": [(run_loop, _BIG)],
  "draw": [(draw, _SMALL)],
  "start": [(process_figures.start, _SMALL)],
  "memory": [
    (process_figures.memory, _BIG),
    (process_figures.memory_growth, _TINY),
  ],
  "checkpoint": [(fn, _SMALL) for fn in checkpoint_figures.ALL],
  "io": [(fn, _BIG) for fn in io_figures.ALL],
  "edge": [(fn, _BIG) for fn in edge_figures.ALL],
  "device": [(fn, _TINY) for fn in device_figures.ALL],
  "delta": [(fn, _SMALL) for fn in delta_figures.ALL],
  "fleet": [(fn, _MIDDLE) for fn in fleet_figures.ALL],
  "labels": [(make_labels, _BIG)],
  "teacher": [
    (fn, size)
    for size in (_BIG, _SMALL)
    for fn in (_mask_rcnn, _mask_rcnn_tiny)
  ],
}

# With --smoke they would take longer than all the others.
_LONG = (
  speed_figures.forward_compiled,
  speed_figures.update_compiled,
  *lane_figures.ALL[1:],
  *delta_figures.ALL[1:-2],
  *fleet_figures.ALL[1:],
)

_WHAT = flags.DEFINE_list("what", ["all"], "of all, " + ", ".join(FIGURES))


def _chosen():
  """The figures asked for, as calls without arguments."""
  names = list(FIGURES) if _WHAT.value == ["all"] else _WHAT.value
  repeats = 3 if _SMOKE.value else _REPEATS.value
  if repeats < 1:
    raise UserError(f"--repeats={repeats}: at least 1")
  asked = _SMOKE_SIZE if _SMOKE.value else None
  asked = _parse_size(_SIZE.value) if _SIZE.value else asked
  pairs = []
  for name in names:
    if name not in FIGURES:
      raise UserError(
        f"--what={name}: unknown; known are all, {', '.join(FIGURES)}"
      )
    pairs += [
      (fn, asked or size)
      for fn, size in FIGURES[name]
      if not (_SMOKE.value and fn in _LONG)
    ]
  # Of one size, some are the same.
  return [functools.partial(*pair, repeats) for pair in dict.fromkeys(pairs)]


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
    raise UserError(f"--backend={_BACKEND.value}: none is here") from None


def _measured(fn):
  """A figure; None where what it is beside cannot be had."""
  try:
    with measure.traced(_PROFILE.value and pathlib.Path(_PROFILE.value)):
      return fn()
  except measure.Unavailable as error:
    print(f"left out: {error}", flush=True)
    return None


_LINE = "{:<33} {:>7} {:>9} {:>12} {:>7} {:>6} {:>6}  {}"


def _row(f):
  times = ("" if x is None else f"{x:.2f}" for x in (f.ms, f.opponent_ms))
  shares = (
    "" if x is None else f"{x:.0%}" for x in (f.flop_share, f.byte_share)
  )
  cells = (f.name, f"{f.ratio:.3f}", *times, f"{f.spread:.1%}", *shares)
  return _LINE.format(*cells, f.note)


def main() -> None:
  """Measures what was asked for, printing each figure as it is known."""
  chosen = _chosen()
  _prepare_backend()
  compilation.enable_cache(compilation.default_cache())
  print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores")
  head = ("name", "ratio", "ms", "opponent ms", "spread", "flop", "copy", "")
  print(_LINE.format(*head))
  figures = []
  for fn in chosen:
    figure = _measured(fn)
    if figure is not None:
      figures.append(figure.as_json())
      print(_row(figure), flush=True)
  if _JSON.value:
    try:
      pathlib.Path(_JSON.value).write_text(json.dumps(figures, indent=2) + "\n")
    except OSError as error:
      raise UserError(f"--json={_JSON.value}: {error.strerror}") from None


if __name__ == "__main__":
  cli.run(main)

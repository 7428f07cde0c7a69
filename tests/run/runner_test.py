"""The host loop on made-up streams and teachers: counts and survival."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from ojd import distill, labels
from ojd.formats import class_maps
from ojd.metrics import confusion_matrix, run_miou
from ojd.run import runner, trackers, trajectory, workdir
from ojd.streams import base as streams
from ojd.types import Labels
from tests.reference import loop_run, scenes, small_run
from tests.reference.loop_run import NUM_FRAMES


def _loop(path, stream=None, failures=(), system=loop_run.SYSTEM, **flags):
  stream = stream or scenes.Stream()
  teacher = loop_run.Teacher(stream, failures)
  job = loop_run.job(path, stream, teacher, system, **flags)
  return runner.Loop(job, path, runner.make_source(job))


def _run(path, *args, **kwargs):
  """Summary, lines of the metrics, problems."""
  return loop_run.run(_loop(path, *args, **kwargs), path)


def test_host_loop_equals_scan_stream(tmp_path):
  stream = scenes.Stream()
  loop = _loop(tmp_path, stream)
  summary, lines, _ = loop_run.run(loop, tmp_path)
  weigh = lambda classes: labels.from_class_map(classes, loop_run.GROUPS)
  weighed = map(weigh, stream.labels.classes)
  stacked = Labels(*(np.stack(part) for part in zip(*weighed, strict=True)))
  system = loop_run.SYSTEM
  state = system.init(jax.random.key(0), stream.frames[0])
  state, (classes, info) = distill.scan_stream(
    system, state, stream.frames, stacked
  )
  for name in ("is_key", "num_updates", "stride"):
    assert [x[name] for x in lines] == list(getattr(info, name))
  np.testing.assert_allclose(
    [x["miou_after"] for x in lines if x["is_key"]],
    info.miou_after[info.is_key],
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    loop.executor.state.params["kernel"], state.params["kernel"], atol=1e-5
  )
  expected = confusion_matrix(stream.labels.classes, np.asarray(classes), 3)
  assert summary["miou"]["mean"] == pytest.approx(run_miou(expected))
  assert summary["finished"] and summary["eval_frames"] == NUM_FRAMES


def test_stream_goes_on_without_a_teacher_that_keeps_failing(tmp_path):
  loop = _loop(tmp_path, failures={0: 99, 2: 99, 4: 1})
  summary, lines, problems = loop_run.run(loop, tmp_path)
  asked = [t for t in loop.job.teacher.calls if t <= 4]
  assert asked == [0] * 3 + [2] * 3 + [4] * 2
  assert summary["teacher_failures"] == 2 and summary["finished"]
  # The first key frame comes as the first stride has it.
  assert [x["t"] for x in lines if x["is_key"]][0] == 4
  assert len(lines) == NUM_FRAMES
  assert len(problems) == 2 and "out of memory" in problems[0]


def test_without_labels_the_teacher_evaluates_now_and_then(tmp_path):
  loop = _loop(tmp_path, scenes.Stream(has_truth=False), eval_every=7)
  summary, lines, _ = loop_run.run(loop, tmp_path)
  assert [x["t"] for x in lines if "eval_miou" in x] == [0, 7, 14, 21, 28]
  assert summary["eval_frames"] == 5
  assert summary["miou"]["reference"] == "teacher"
  assert summary["speedup_measured"] > 0
  # A key frame's answer judges too: it is not asked for twice.
  assert len(loop.job.teacher.calls) == len(set(loop.job.teacher.calls))


def test_teacher_that_fails_to_evaluate_is_reported(tmp_path):
  stream = scenes.Stream(has_truth=False)
  summary, _, problems = _run(tmp_path, stream, {7: 99}, eval_every=7)
  assert summary["teacher_failures"] == len(problems) == 1
  assert summary["eval_frames"] == 4


def test_updates_rolled_back_are_counted_up_to_the_summary(tmp_path):
  # Every second update is infinite.
  steps = lambda count: jnp.where(count % 2 == 0, -0.3, jnp.inf)
  system = loop_run.system(optax.scale_by_schedule(steps))
  summary, lines, _ = _run(tmp_path, system=system)
  keys = [x for x in lines if x["is_key"]]
  assert summary["num_rolled_back"] > 0 and summary["finished"]
  assert summary["num_rolled_back"] == sum(x["num_rolled_back"] for x in keys)
  assert all(np.isfinite(x["loss"]) for x in keys)


def test_stream_of_which_nothing_can_be_read_is_a_failure(tmp_path):
  with pytest.raises(RuntimeError, match="no frame"):
    _run(tmp_path, scenes.Stream(broken=range(NUM_FRAMES)))
  summary = workdir.read_summary(tmp_path)
  assert summary["num_skipped"] == NUM_FRAMES and not summary["finished"]


def test_num_frames_and_a_request_to_stop_end_a_run(tmp_path):
  for name in ("short", "stopped"):
    (tmp_path / name).mkdir()
  summary, _, _ = _run(tmp_path / "short", num_frames=11, eval_every=0)
  assert summary["num_frames"] == 11 and summary["finished"]
  assert summary["eval_frames"] == 0 and summary["miou"]["mean"] is None
  loop = _loop(tmp_path / "stopped")
  loop.should_stop = lambda: loop.stats.num_frames == 5
  summary, lines, _ = loop_run.run(loop, tmp_path / "stopped")
  assert summary["num_frames"] == len(lines) == 5 and not summary["finished"]


def test_error_of_the_stream_leaves_a_summary(tmp_path):
  stream = scenes.Stream()
  read = stream.read

  def broken(start=0):
    yield from itertools.islice(read(start), 6)
    raise OSError("the cable")

  stream.read = broken
  with pytest.raises(OSError, match="the cable"):
    _run(tmp_path, stream)
  summary = workdir.read_summary(tmp_path)
  assert summary["num_frames"] == len(small_run.lines(tmp_path)) == 6
  assert not summary["finished"]


def test_what_comes_out_is_of_size_and_time_of_the_source(tmp_path):
  """Two frames cannot be read: they are skipped and counted."""
  stream = scenes.Stream(broken=(0, 7))
  read = stream.read
  stream.read = lambda start=0: (
    sample._replace(seconds=100.5 + sample.t**2) for sample in read(start)
  )
  height, width = stream.spec.height, stream.spec.width
  size = (2 * height, 3 * width)
  stream.spec = stream.spec._replace(source_size=size)
  wanted = {"save_masks": "video", "boxes": True, "areas": True}
  summary, lines, problems = _run(tmp_path, stream, **wanted)
  assert problems == [f"frame {t} skipped: torn in two" for t in (0, 7)]
  assert summary["num_skipped"] == 2 and summary["finished"]
  assert summary["num_frames"] == NUM_FRAMES - 2
  assert lines[0]["is_key"]  # the first frame that there is
  masks = dict(class_maps.read_masks(tmp_path))
  times = [line["t"] for line in lines]
  assert list(masks) == times == [*range(1, 7), *range(8, NUM_FRAMES)]
  # The masks are the answers that were judged.
  confusion = sum(
    confusion_matrix(stream.labels.classes[t], masks[t][1::2, 1::3], 3)
    for t in times
  )
  assert run_miou(confusion) == pytest.approx(summary["miou"]["mean"])
  areas = (tmp_path / workdir.AREAS).read_text().splitlines()
  areas = {x["t"]: x for x in map(json.loads, areas)}
  assert list(areas) == times
  for t, mask in masks.items():
    assert mask.shape == size
    shares = np.bincount(mask.ravel(), minlength=3) / mask.size
    assert list(areas[t]["areas"].values()) == pytest.approx(shares, abs=1e-6)
    assert areas[t]["seconds"] == 100.5 + t**2
  boxes = json.loads((tmp_path / workdir.BOX_LIST).read_text())
  assert boxes and {x["image_id"] for x in boxes} <= set(times)
  for box in boxes:
    x, y, width, height = box["bbox"]
    inside = masks[box["image_id"]][y : y + height, x : x + width]
    assert (inside == box["category_id"]).sum() >= box["area"]


class _Tracker:
  """Takes lines until its disk is full."""

  def __init__(self, room):
    self.room, self.lines = room, []

  def write(self, line):
    if len(self.lines) == self.room:
      raise OSError("No space left on device")
    self.lines.append(line)

  def close(self):
    pass


def test_curves_are_the_metrics_and_their_failure_ends_nothing(tmp_path):
  loop, short, whole = _loop(tmp_path), _Tracker(12), _Tracker(1000)
  named = {"wandb": short, "tensorboard": whole}
  loop.outputs._trackers = trackers.Trackers(
    tuple(trackers.Guarded(name, fake) for name, fake in named.items())
  )
  summary, lines, (problem,) = loop_run.run(loop, tmp_path)
  assert problem.startswith("--wandb is switched off: OSError: No space")
  assert summary["finished"] and len(lines) == NUM_FRAMES
  assert short.lines == whole.lines[:12]
  for line, taken in zip(lines, whole.lines, strict=True):
    assert taken == line | {"miou": taken["miou"]}
  assert taken["miou"] == pytest.approx(summary["miou"]["mean"])


@pytest.mark.parametrize(
  ("is_live", "is_late"), [(False, False), (True, False), (False, True)]
)
def test_recorded_answers_are_reused_where_the_frames_are_the_same(
  tmp_path, small_students, monkeypatch, is_live, is_late
):
  """A live stream shows something else when its run is resumed."""
  seen, open_stream = [], streams.open_stream
  writer = trajectory.TrajectoryWriter

  def spy(*args, is_repeatable, **kwargs):
    seen.append(is_repeatable)
    return writer(*args, is_repeatable=is_repeatable, **kwargs)

  def opened(*args):
    stream = open_stream(*args)
    stream.spec = stream.spec._replace(is_live=is_live)
    stream.close = lambda: None
    return stream

  monkeypatch.setattr(trajectory, "TrajectoryWriter", spy)
  monkeypatch.setattr(streams, "open_stream", opened)
  small_run.run(tmp_path, num_frames=2, async_teacher=is_late)
  assert seen == [not (is_live or is_late)]


def test_frames_without_labels_are_nobodys_question(tmp_path, small_students):
  """Two frames of eight are labelled: the others are not judged."""
  frames = tmp_path / "data/leftImg8bit_sequence/val/ulm"
  truth = tmp_path / "data/gtFine/val/ulm"
  frames.mkdir(parents=True)
  truth.mkdir(parents=True)
  numbers = np.full((48, 64), 26, np.uint8)  # a car
  numbers[:, :20] = 7  # a road
  for t in range(8):
    frame = np.random.default_rng(t).integers(0, 60, (48, 64, 3), np.uint8)
    frame[:, :20] += 120
    name = f"ulm_000000_{t:06d}"
    Image.fromarray(frame).save(frames / f"{name}_leftImg8bit.png")
    if t in (2, 5):
      Image.fromarray(numbers).save(truth / f"{name}_gtFine_labelIds.png")
  path, stream = tmp_path / "run", f"cityscapes:{tmp_path / 'data'}"
  flags = {"classes": "road;car", "delta_min": 2, "delta_max": 2}
  summary = small_run.run(path, stream=stream, **flags).summary
  assert summary["finished"] and summary["num_key_frames"] == 4
  assert summary["eval_frames"] == 2
  rows = small_run.lines(path)
  assert [row["t"] for row in rows if "eval_miou" in row] == [2, 5]
  # Nothing is learnt where nothing is labelled.
  learnt = {row["t"]: row["num_updates"] for row in rows if row["is_key"]}
  assert learnt[2] > 0 == learnt[4]

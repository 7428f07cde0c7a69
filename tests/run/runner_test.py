"""The host loop on made-up streams and teachers: counts and survival."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ojd import distill, labels, systems, updates
from ojd.formats import class_maps
from ojd.metrics import confusion_matrix, run_miou
from ojd.run import build, runner, trackers, trajectory, workdir
from ojd.run.config import RunConfig
from ojd.streams import base as streams
from ojd.teachers import labelers
from ojd.types import Labels
from tests.reference import scenes, small_run, tiny_student

STUDENT = tiny_student.make()
NUM_FRAMES = 30


class _Teacher:
  """Knows a stream's answers; fails `failures` times on a frame."""

  class_names = scenes.NAMES
  is_free = False

  def __init__(self, stream, failures=None):
    self.stream, self.failures, self.calls = stream, failures or {}, []

  def __call__(self, sample):
    self.calls.append(sample.t)
    if self.failures.get(sample.t, 0) > 0:
      self.failures[sample.t] -= 1
      raise RuntimeError("out of memory")
    return self.stream.labels.classes[sample.t]


def _system(tx=None):
  tx = tx or updates.sgd(learning_rate=0.3)
  return systems.jit(
    STUDENT, tx, a_thresh=0.8, delta_min=2, delta_max=8, u_max=4
  )


def _loop(path, stream, teacher=None, **config):
  teacher = teacher or _Teacher(stream)
  groups = labels.parse_groups("", scenes.NAMES)
  config = RunConfig(workdir=str(path), overlay=False, **config)
  truth_groups = groups if stream.has_truth else None
  job = build.Job(config, stream, teacher, groups, truth_groups, _system())
  return runner.Loop(job, path, runner.make_source(job))


def _lines(path):
  text = (path / workdir.METRICS).read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_host_loop_equals_scan_stream(tmp_path):
  stream = scenes.Stream()
  loop = _loop(tmp_path, stream)
  summary = loop.run()
  weighed = [
    labels.from_class_map(c, loop.job.groups) for c in stream.labels[0]
  ]
  stacked = Labels(*(np.stack(part) for part in zip(*weighed, strict=True)))
  system = loop.job.system
  state = system.init(jax.random.key(0), stream.frames[0])
  state, (classes, info) = distill.scan_stream(
    system, state, stream.frames, stacked
  )
  lines = _lines(tmp_path)
  assert [x["is_key"] for x in lines] == list(info.is_key)
  assert [x["num_updates"] for x in lines] == list(info.num_updates)
  assert [x["stride"] for x in lines] == list(info.stride)
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


def test_frame_that_cannot_be_read_is_skipped_and_counted(tmp_path):
  loop = _loop(tmp_path, scenes.Stream(broken=(0, 7)))
  problems = []
  loop.progress_fn = lambda p: p.problem and problems.append(p.problem)
  summary = loop.run()
  assert summary["num_skipped"] == 2
  assert summary["num_frames"] == NUM_FRAMES - 2 and summary["finished"]
  assert [x["t"] for x in _lines(tmp_path)][:8] == [1, 2, 3, 4, 5, 6, 8, 9]
  assert _lines(tmp_path)[0]["is_key"]  # the first frame that there is
  assert problems == [
    "frame 0 skipped: torn in two",
    "frame 7 skipped: torn in two",
  ]


def test_teacher_that_fails_is_retried(tmp_path):
  stream = scenes.Stream()
  teacher = _Teacher(stream, failures={0: labelers.TRIES - 1})
  summary = _loop(tmp_path, stream, teacher).run()
  assert teacher.calls[: labelers.TRIES] == [0] * labelers.TRIES
  assert summary["teacher_failures"] == 0 and summary["finished"]
  assert _lines(tmp_path)[0]["is_key"]


def test_stream_goes_on_without_a_teacher_that_keeps_failing(tmp_path):
  stream = scenes.Stream()
  teacher = _Teacher(stream, failures={0: 99, 2: 99})
  loop = _loop(tmp_path, stream, teacher)
  problems = []
  loop.progress_fn = lambda p: p.problem and problems.append(p.problem)
  summary = loop.run()
  assert summary["teacher_failures"] == 2 and summary["finished"]
  keys = [x["t"] for x in _lines(tmp_path) if x["is_key"]]
  assert keys[0] == 4  # the stride is still the first
  assert len(_lines(tmp_path)) == NUM_FRAMES
  assert len(problems) == 2 and "out of memory" in problems[0]


def test_without_labels_the_teacher_evaluates_now_and_then(tmp_path):
  stream = scenes.Stream(has_truth=False)
  teacher = _Teacher(stream)
  summary = _loop(tmp_path, stream, teacher, eval_every=7).run()
  lines = _lines(tmp_path)
  assert [x["t"] for x in lines if "eval_miou" in x] == [0, 7, 14, 21, 28]
  assert summary["eval_frames"] == 5
  assert summary["miou"]["reference"] == "teacher"
  assert summary["speedup_measured"] > 0
  # A key frame's answer judges too: it is not asked for twice.
  assert len(teacher.calls) == len(set(teacher.calls))


def test_teacher_that_fails_to_evaluate_is_reported(tmp_path):
  stream = scenes.Stream(has_truth=False)
  teacher = _Teacher(stream, failures={7: 99})
  loop = _loop(tmp_path, stream, teacher, eval_every=7)
  problems = []
  loop.progress_fn = lambda p: p.problem and problems.append(p.problem)
  summary = loop.run()
  assert summary["teacher_failures"] == len(problems) == 1
  assert summary["eval_frames"] == 4


def test_updates_rolled_back_are_counted_up_to_the_summary(tmp_path):
  stream = scenes.Stream()
  loop = _loop(tmp_path, stream)
  # Every second update is infinite.
  steps = lambda count: jnp.where(count % 2 == 0, -0.3, jnp.inf)
  loop.job = loop.job._replace(system=_system(optax.scale_by_schedule(steps)))
  summary = loop.run()
  lines = [x for x in _lines(tmp_path) if x["is_key"]]
  assert summary["num_rolled_back"] > 0 and summary["finished"]
  assert summary["num_rolled_back"] == sum(x["num_rolled_back"] for x in lines)
  assert all(np.isfinite(x["loss"]) for x in lines)


def test_stream_of_which_nothing_can_be_read_is_a_failure(tmp_path):
  with pytest.raises(RuntimeError, match="no frame"):
    _loop(tmp_path, scenes.Stream(broken=range(NUM_FRAMES))).run()
  summary = json.loads((tmp_path / workdir.SUMMARY).read_text())
  assert summary["num_skipped"] == NUM_FRAMES and not summary["finished"]


def test_evaluation_can_be_turned_off(tmp_path):
  summary = _loop(tmp_path, scenes.Stream(), eval_every=0).run()
  assert summary["eval_frames"] == 0
  assert summary["miou"]["mean"] is None


def test_num_frames_and_a_request_to_stop_end_a_run(tmp_path):
  for name in ("short", "stopped"):
    (tmp_path / name).mkdir()
  summary = _loop(tmp_path / "short", scenes.Stream(), num_frames=11).run()
  assert summary["num_frames"] == 11 and summary["finished"]
  loop = _loop(tmp_path / "stopped", scenes.Stream())
  loop.should_stop = lambda: loop.stats.num_frames == 5
  summary = loop.run()
  assert summary["num_frames"] == 5 and not summary["finished"]
  assert len(_lines(tmp_path / "stopped")) == 5


def test_error_of_the_stream_leaves_a_summary(tmp_path):
  stream = scenes.Stream()
  read = stream.read

  def broken(start=0):
    for sample in read(start):
      if sample.t == 6:
        raise OSError("the cable")
      yield sample

  stream.read = broken
  with pytest.raises(OSError, match="the cable"):
    _loop(tmp_path, stream).run()
  summary = json.loads((tmp_path / workdir.SUMMARY).read_text())
  assert summary["num_frames"] == 6 and not summary["finished"]
  assert len(_lines(tmp_path)) == 6


def test_what_comes_out_is_of_the_size_of_the_source(tmp_path):
  stream = scenes.Stream(broken=(5, 6))
  height, width = stream.spec.height, stream.spec.width
  size = (2 * height, 3 * width)
  stream.spec = stream.spec._replace(source_size=size)
  wanted = {"save_masks": "video", "boxes": True, "areas": True}
  summary = _loop(tmp_path, stream, **wanted).run()
  masks = dict(class_maps.read_masks(tmp_path))
  times = [line["t"] for line in _lines(tmp_path)]
  assert list(masks) == times and len(times) == NUM_FRAMES - 2
  # The masks are the answers that were judged.
  confusion = sum(
    confusion_matrix(stream.labels.classes[t], masks[t][1::2, 1::3], 3)
    for t in times
  )
  assert run_miou(confusion) == pytest.approx(summary["miou"]["mean"])
  areas = (tmp_path / workdir.AREAS).read_text().splitlines()
  areas = {x["t"]: x for x in map(json.loads, areas)}
  assert list(areas) == times
  for t in times:
    assert masks[t].shape == size
    shares = np.bincount(masks[t].ravel(), minlength=3) / masks[t].size
    assert list(areas[t]["areas"].values()) == pytest.approx(shares, abs=1e-6)
    assert areas[t]["seconds"] == pytest.approx(t / stream.spec.fps, abs=1e-6)
  boxes = json.loads((tmp_path / workdir.BOX_LIST).read_text())
  assert boxes and {x["image_id"] for x in boxes} <= set(times)
  for box in boxes:
    x, y, width, height = box["bbox"]
    inside = masks[box["image_id"]][y : y + height, x : x + width]
    assert (inside == box["category_id"]).sum() >= box["area"]


def test_time_stamps_of_the_source_are_kept(tmp_path):
  stream = scenes.Stream()
  read = stream.read
  stream.read = lambda start=0: (
    sample._replace(seconds=100.5 + sample.t**2) for sample in read(start)
  )
  _loop(tmp_path, stream, areas=True, num_frames=4).run()
  lines = (tmp_path / workdir.AREAS).read_text().splitlines()
  seconds = [json.loads(line)["seconds"] for line in lines]
  assert seconds == [100.5, 101.5, 104.5, 109.5]


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


@pytest.mark.parametrize("room", [12, 1000])
def test_curves_are_the_metrics_and_their_failure_ends_nothing(tmp_path, room):
  loop, fake = _loop(tmp_path, scenes.Stream()), _Tracker(room)
  curves = trackers.Trackers((trackers.Guarded("wandb", fake),))
  loop.outputs._trackers = curves
  problems = []
  loop.progress_fn = lambda p: p.problem and problems.append(p.problem)
  summary = loop.run()
  lines = _lines(tmp_path)
  assert summary["finished"] and len(lines) == NUM_FRAMES
  for line, taken in zip(lines, fake.lines, strict=False):
    assert taken == line | {"miou": taken["miou"]}
  if room > NUM_FRAMES:
    assert problems == [] and len(fake.lines) == NUM_FRAMES
    assert fake.lines[-1]["miou"] == pytest.approx(summary["miou"]["mean"])
  else:
    (problem,) = problems
    assert problem.startswith("--wandb is switched off: OSError: No space")
    assert len(fake.lines) == room


@pytest.mark.parametrize(
  ("is_live", "is_late"), [(False, False), (True, False), (False, True)]
)
def test_recorded_answers_are_reused_where_the_frames_are_the_same(
  tmp_path, small_students, monkeypatch, is_live, is_late
):
  """A live stream shows something else when its run is resumed."""
  seen, open_stream = [], streams.open_stream

  class Spy(trajectory.TrajectoryWriter):
    def __init__(self, *args, is_repeatable, **kwargs):
      seen.append(is_repeatable)
      super().__init__(*args, is_repeatable=is_repeatable, **kwargs)

  def opened(*args):
    stream = open_stream(*args)
    stream.spec = stream.spec._replace(is_live=is_live)
    stream.close = lambda: None
    return stream

  monkeypatch.setattr(trajectory, "TrajectoryWriter", Spy)
  monkeypatch.setattr(streams, "open_stream", opened)
  flags = dict(workdir=str(tmp_path), num_frames=2, async_teacher=is_late)
  runner.run(dataclasses.replace(small_run.CONFIG, **flags), "")
  assert seen == [not (is_live or is_late)]

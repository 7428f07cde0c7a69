"""The loop that does not wait for its teacher, against a simulation of it."""

import time

import jax
import numpy as np
import pytest

from ojd import labels
from ojd.metrics import confusion_matrix, run_miou
from ojd.report import run_page
from ojd.run import loop as loop_lib
from ojd.run import runner
from ojd.teachers import labelers
from tests.reference import loop_run, scenes
from tests.reference.loop_run import GROUPS, NUM_FRAMES, SYSTEM


class _Labeler:
  """Answers after so many polls, or when waited for."""

  is_free = False

  def __init__(self, stream, delays, failures=()):
    self.stream, self.delays, self.failures = stream, delays, failures
    self.asked, self.request = [], None
    self.num_polls, self.is_closed = 0, False

  def ask(self, sample):
    assert self.request is None, "one request at a time"
    self.asked.append(sample.t)
    self.request, self.num_polls = sample, 0

  def answer(self, wait):
    assert self.request is not None
    self.num_polls += 1
    delay = self.delays[min(len(self.asked), len(self.delays)) - 1]
    if self.num_polls < delay and not wait:
      return None
    sample, self.request = self.request, None
    if sample.t in self.failures:
      return labelers.Answer(sample, None, "out of memory", 0.0)
    classes = self.stream.labels.classes[sample.t]
    made = labels.from_class_map(classes, GROUPS)
    return labelers.Answer(sample, made, "", 0.25)

  def poll(self):
    return ""

  def close(self):
    self.is_closed = True


def _loop(path, stream, labeler=None, teacher=None, **flags):
  job = loop_run.job(path, stream, teacher, async_teacher=True, **flags)
  return loop_lib.Loop(
    *(job, path, runner.make_source(job)),
    executor=loop_run.executor(),
    labeler=labeler,
  )


def _run(path, stream, labeler, **flags):
  """Summary, lines of the metrics, those of key frames, problems."""
  loop = _loop(path, stream, labeler, **flags)
  summary, lines, problems = loop_run.run(loop, path)
  return summary, lines, [x for x in lines if x["is_key"]], problems


def _simulate(stream, delays):
  """What must happen, frame by frame: (asked, k or None, updates, mIoU)."""
  learn, predict = jax.jit(SYSTEM.learn), jax.jit(SYSTEM.predict)
  state = SYSTEM.init(jax.random.key(0), np.zeros((16, 20, 3), np.uint8))
  request, num_asked, stride, due, expected_keys = None, 0, 2, 0, []
  for s, frame in enumerate(stream.frames):
    k, is_asked, count = None, False, 0
    if request is not None and s - request == delays[num_asked - 1]:
      k, request = request, None
      made = labels.from_class_map(stream.labels.classes[k], GROUPS)
      state, _, info = learn(state, stream.frames[k], made)
      count = int(info.num_updates)
      # Algorithm 1, by hand: double or halve, then the next multiple.
      is_good = float(info.miou_after) > 0.8
      stride = min(8, 2 * stride) if is_good else max(2, stride // 2)
      due = (s // stride + 1) * stride
      _, classes = predict(state, frame)
    else:
      if request is None and s == due:
        request, is_asked, num_asked = s, True, num_asked + 1
      state, classes = predict(state, frame)
    confusion = confusion_matrix(
      stream.labels.classes[s], np.asarray(classes), 3
    )
    expected_keys.append((is_asked, k, count, run_miou(confusion)))
  return expected_keys, state


@pytest.mark.parametrize(
  "delays", [[1] * 30, [3] * 30, [7] * 30, [1, 5, 2, 9, 4, 3, 30, 1]]
)
def test_loop_does_what_a_simulation_does(tmp_path, delays):
  stream = scenes.Stream(NUM_FRAMES)
  labeler = _Labeler(stream, delays)
  summary, lines, keys, _ = _run(tmp_path, stream, labeler)
  expected_keys, state = _simulate(stream, delays)
  asked, key_ts, counts, mious = zip(*expected_keys, strict=True)
  assert [line.get("asked", False) for line in lines] == list(asked)
  assert [line.get("key_t") for line in lines] == list(key_ts)
  assert [line["num_updates"] for line in lines] == list(counts)
  np.testing.assert_allclose(
    [line["eval_miou"] for line in lines], mious, rtol=1e-5
  )
  there = loop_run.executor().state
  np.testing.assert_allclose(
    there.params["kernel"], state.params["kernel"], atol=1e-5
  )
  assert int(there.t) == int(state.t) == NUM_FRAMES
  count = len(keys)
  assert [k["delay"] for k in keys] == delays[:count]
  assert all(k["t"] - k["key_t"] == k["delay"] for k in keys)
  assert all(k["ms_teacher"] == 250.0 and "ms_learn" in k for k in keys)
  assert summary["num_key_frames"] == count > 0
  mean = np.mean(delays[:count])
  assert summary["mean_delay_frames"] == pytest.approx(mean)
  assert summary["finished"] and labeler.is_closed
  # The open request at the end counts as nothing.
  assert len(labeler.asked) - count in (0, 1)
  assert summary["teacher_failures"] == 0
  # The time of the teacher is apart.
  seconds = summary["seconds"]
  assert seconds["teacher_async"] == pytest.approx(0.25 * count)
  assert "teacher" not in seconds
  apart = ("compile", "evaluate", "teacher_async")
  work = sum(s for name, s in seconds.items() if name not in apart)
  assert summary["fps"] == pytest.approx(NUM_FRAMES / work, rel=0.05)
  speedup = pytest.approx(0.25 * summary["fps"], rel=0.01)
  assert summary["speedup_measured"] == speedup


def test_failure_is_reported_and_the_next_request_made_in_turn(tmp_path):
  stream = scenes.Stream(NUM_FRAMES)
  # Frame 2 is a key frame of the first stride, and known of just then.
  labeler = _Labeler(stream, [2] * 30, failures=(0, 2))
  summary, _, keys, problems = _run(tmp_path, stream, labeler)
  assert labeler.asked[:3] == [0, 2, 4]
  assert problems == [
    f"the teacher failed on frame {t}: out of memory" for t in (0, 2)
  ]
  assert summary["teacher_failures"] == 2 and summary["finished"]
  assert (keys[0]["key_t"], keys[0]["t"]) == (4, 6)


def test_without_labels_the_answers_at_key_frames_are_evaluated(tmp_path):
  stream = scenes.Stream(NUM_FRAMES, has_truth=False)
  loop = _loop(tmp_path, stream, _Labeler(stream, [3] * 30))
  said, predict = [], loop._predict
  loop._predict = lambda *a, **b: said.append(predict(*a, **b)) or said[-1]
  summary, lines, _ = loop_run.run(loop, tmp_path)
  keys = [line for line in lines if line["is_key"]]
  assert [line for line in lines if "eval_miou" in line] == keys
  assert summary["eval_frames"] == len(keys)
  assert all(line["eval_t"] == line["key_t"] for line in keys)
  # Frame 0 was answered by the student that had learnt nothing.
  expected = run_miou(confusion_matrix(stream.labels.classes[0], said[0], 3))
  assert keys[0]["eval_miou"] == pytest.approx(expected)


def test_the_teacher_evaluates_other_frames_with_eval_every(tmp_path):
  stream = scenes.Stream(NUM_FRAMES, has_truth=False)
  labeler = _Labeler(stream, [3] * 30)
  summary, lines, keys, _ = _run(tmp_path, stream, labeler, eval_every=7)
  judged = [line["t"] for line in lines if "eval_miou" in line]
  assert judged == [0, 7, 14, 21, 28]
  assert not any("eval_t" in line for line in lines)
  # The key frame 0 is asked about once; its answer was waited for.
  assert labeler.asked.count(0) == 1 and keys[0]["delay"] == 1
  assert summary["eval_frames"] == 5 and summary["finished"]


def test_frames_that_cannot_be_read_are_no_trouble(tmp_path):
  """And nothing is judged where nobody wants it."""
  stream = scenes.Stream(NUM_FRAMES, has_truth=False, broken=(1, 2))
  labeler = _Labeler(stream, [1] * 30)
  summary, _, (first, *_), _ = _run(tmp_path, stream, labeler, eval_every=0)
  assert summary["eval_frames"] == 0
  # In frames of the stream, of which two passed unseen.
  assert (first["key_t"], first["t"], first["delay"]) == (0, 3, 3)
  assert summary["num_skipped"] == 2 and summary["finished"]


def test_pictures_and_report_know_how_old_the_labels_are(tmp_path):
  stream = scenes.Stream(NUM_FRAMES, has_truth=False)
  loop = _loop(tmp_path, stream, _Labeler(stream, [5] * 30), overlay=True)
  records = []
  for sink in loop.outputs._sinks:
    put = sink.put
    sink.put = lambda record, put=put: records.append(record) or put(record)
  loop.run()
  by_t = {r.caption.t: r for r in records}
  assert by_t[4].reference is None
  assert by_t[5].caption.reference_title == "teacher, 5 frames ago"
  assert by_t[5].caption.is_key and not by_t[0].caption.is_key
  np.testing.assert_array_equal(by_t[5].reference, stream.labels.classes[0])
  page = run_page.write(tmp_path).read_text()
  for words in ("5 frames late", "teacher, beside the stream", ">delay<"):
    assert words in page


def test_thread_teaches_while_the_stream_goes_on(tmp_path):
  stream = scenes.Stream(NUM_FRAMES)
  read = stream.read

  def live(start=0):
    for sample in read(start):
      time.sleep(0.01)
      yield sample

  stream.read = live
  teacher = loop_run.Teacher(stream, seconds=0.05)
  loop = _loop(tmp_path, stream, teacher=teacher)
  assert isinstance(loop.labeler, labelers.InThread)
  summary, lines, _ = loop_run.run(loop, tmp_path)
  num_keys = sum(line["is_key"] for line in lines)
  assert num_keys and summary["finished"]
  assert summary["mean_delay_frames"] > 1
  # Nobody waited for the teacher.
  assert summary["seconds"]["ask"] < 0.05 * num_keys

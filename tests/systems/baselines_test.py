"""Methods without learning, beside lists and a flow loop made by hand."""

import jax
import numpy as np
import pytest

from ojd import metrics, systems
from ojd.models import optical_flow
from ojd.types import IGNORE, Labels
from tests.reference import host_loop, pictures, scenes, tiny_student

STUDENT = tiny_student.make()
FRAMES, LABELS = scenes.coloured_squares(10)


@pytest.mark.parametrize(
  ("system", "stride"),
  [
    *((systems.copy_last(STUDENT, stride=s), s) for s in (1, 3, 8)),
    (systems.teacher(STUDENT), 1),
  ],
)
def test_answer_of_the_latest_key_frame_is_kept(system, stride):
  found = host_loop.play(system, FRAMES, LABELS)
  times = np.arange(len(FRAMES))
  expected = LABELS.classes[times - times % stride]
  np.testing.assert_array_equal(found.answers, expected)
  assert found.keys == list(range(0, len(FRAMES), stride))
  for t, info in found.infos.items():
    before = LABELS.classes[t - stride] if t else np.zeros((16, 20), np.uint8)
    confusion = metrics.confusion_matrix(LABELS.classes[t], before, 3)
    np.testing.assert_allclose(
      info.miou_before, metrics.run_miou(confusion), rtol=1e-6
    )
    assert info.miou_after == 1 and info.num_updates == 0
    assert info.is_key and info.stride == stride


def test_strides_in_lanes_and_ignored_pixels():
  def one(stride):
    system = systems.copy_last(STUDENT, stride=stride)
    return host_loop.scan(system, FRAMES, labels, axis_name="a")[1][0]

  labels = jax.tree.map(np.array, LABELS)
  labels.classes[0, :3], labels.weights[0, :3] = IGNORE, 0
  strides = np.array([2, 5])
  together = jax.jit(jax.vmap(one, axis_name="a"))(strides)
  times = np.arange(len(FRAMES))
  for answers, stride in zip(together, strides, strict=True):
    expected = labels.classes[times - times % stride]
    np.testing.assert_array_equal(answers, expected * (expected != IGNORE))


@pytest.mark.parametrize("name", ["frozen", "offline_oracle"])
def test_student_that_never_learns_has_one_answer(name):
  system = systems.create(name, STUDENT, None)
  params = STUDENT.init(jax.random.key(0), FRAMES[0])
  found = host_loop.play(system, FRAMES, LABELS)
  assert found.keys == [] and int(found.state.t) == len(FRAMES)
  assert int(system.next_key(found.state)) == np.iinfo(np.int32).max
  expected = [np.asarray(STUDENT.apply(params, x)).argmax(-1) for x in FRAMES]
  np.testing.assert_array_equal(found.answers, expected)


NUM_FRAMES, SIZE, STRIDE = 9, (48, 64), 4


def _moving_world():
  """A texture with a class each blotch, seen from a camera that moves."""
  frames = pictures.views(NUM_FRAMES, *SIZE, 2, -3)
  classes = (frames[..., 0] > 128).astype(np.uint8)
  return frames, Labels(classes, np.ones(classes.shape, np.float32))


def _numpy_loop(frames, labels, flow_fn, stride):
  answers, drifted = [], {}
  previous = np.zeros_like(frames[0])
  classes = np.zeros(SIZE, np.uint8)
  for t, frame in enumerate(frames):
    motion = np.rint(flow_fn(np.array(frame), np.array(previous))).astype(int)
    rows = np.arange(SIZE[0])[:, None] + motion[..., 1]
    columns = np.arange(SIZE[1]) + motion[..., 0]
    moved = classes[rows.clip(0, SIZE[0] - 1), columns.clip(0, SIZE[1] - 1)]
    if t % stride == 0:
      drifted[t] = moved
      moved = np.where(labels.classes[t] == IGNORE, 0, labels.classes[t])
    classes, previous = moved, frame
    answers.append(classes)
  return np.stack(answers), drifted


def test_system_equals_a_numpy_loop_in_the_host_loop_and_in_a_scan():
  frames, labels = _moving_world()
  labels.classes[0, :2], labels.weights[0, :2] = IGNORE, 0
  system = systems.flow(tiny_student.make(2), stride=STRIDE)
  expected, drifted = _numpy_loop(
    frames, labels, optical_flow.dis("medium"), STRIDE
  )
  found = host_loop.play(system, frames, labels)
  np.testing.assert_array_equal(found.answers, expected)
  for t, info in found.infos.items():
    confusion = metrics.confusion_matrix(labels.classes[t], drifted[t], 2)
    np.testing.assert_allclose(
      info.miou_before, metrics.run_miou(confusion), rtol=1e-6
    )
    assert info.miou_after == 1 and info.stride == STRIDE
  _, (scanned, infos) = host_loop.compiled_scan(system, frames, labels)
  np.testing.assert_array_equal(scanned, expected)
  assert np.flatnonzero(infos.is_key).tolist() == found.keys == [0, 4, 8]

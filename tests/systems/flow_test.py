"""Labels carried along a flow that is known, beside a numpy loop."""

import cv2
import numpy as np

from ojd import metrics, systems
from ojd.models import optical_flow
from ojd.types import IGNORE, Labels
from tests.reference import host_loop, tiny_student

NUM_FRAMES, SIZE, STRIDE = 9, (48, 64), 4
MARGIN = 40
STUDENT = tiny_student.make(2)


def _moving_world():
  """A texture with a class each blotch, seen from a camera that moves."""
  rng = np.random.default_rng(0)
  height, width = (side + 2 * MARGIN for side in SIZE)
  small = rng.integers(0, 256, (height // 4, width // 4, 3), np.uint8)
  world = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
  classes = (world[..., 0] > 128).astype(np.uint8)
  places = [(MARGIN + 2 * t, MARGIN - 3 * t) for t in range(NUM_FRAMES)]
  view = lambda x: np.stack(
    [x[y : y + SIZE[0], c : c + SIZE[1]] for y, c in places]
  )
  labels = view(classes)
  return view(world), Labels(labels, np.ones(labels.shape, np.float32))


FRAMES, LABELS = _moving_world()


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
  labels = Labels(*(x.copy() for x in LABELS))
  labels.classes[0, :2], labels.weights[0, :2] = IGNORE, 0
  system = systems.flow(STUDENT, stride=STRIDE)
  expected, drifted = _numpy_loop(
    FRAMES, labels, optical_flow.dis("medium"), STRIDE
  )
  found = host_loop.play(system, FRAMES, labels)
  np.testing.assert_array_equal(found.answers, expected)
  for t, info in found.infos.items():
    confusion = metrics.confusion_matrix(labels.classes[t], drifted[t], 2)
    np.testing.assert_allclose(
      info.miou_before, metrics.run_miou(confusion), rtol=1e-6
    )
    assert info.miou_after == 1 and info.stride == STRIDE
  _, (scanned, infos) = host_loop.compiled_scan(system, FRAMES, labels)
  np.testing.assert_array_equal(scanned, expected)
  assert np.flatnonzero(infos.is_key).tolist() == found.keys == [0, 4, 8]


def test_what_moves_by_whole_pixels_is_followed_to_the_pixel():
  system = systems.flow(STUDENT, stride=NUM_FRAMES)
  _, (answers, _) = host_loop.compiled_scan(system, FRAMES, LABELS)
  # What is new came in from below and from the left, by 2 and 3 a frame.
  for t in range(NUM_FRAMES):
    inside = np.s_[8 : SIZE[0] - 8 - 2 * t, 8 + 3 * t : SIZE[1] - 8]
    wrong = answers[t][inside] != LABELS.classes[t][inside]
    assert wrong.mean() < 0.01
  # The labels unmoved would be far off.
  assert (LABELS.classes[4] != LABELS.classes[0]).mean() > 0.2

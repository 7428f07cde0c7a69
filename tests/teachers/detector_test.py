"""Labels made by torch against those made by numpy, and their way to JAX."""

import sys
import types

import jax
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ojd import labels as labels_lib
from ojd.run import loop, sources
from ojd.teachers import base, detector, tiny
from ojd.types import IGNORE, Labels, Sample
from tests.reference import loop_run, scenes, small_run

NAMES = ("background", "person", "bicycle", "car", "bus", "truck", "dog")
GROUPS = labels_lib.parse_groups(  # without dogs
  "person;auto=car,bus,truck;bike=bicycle", NAMES
)
H, W = 20, 24
DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]


def _output(boxes, labels, masks, scores):
  """As torchvision gives it; boxes are x0 y0 x1 y1."""
  return {
    "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
    "labels": torch.tensor(labels, dtype=torch.int64),
    "scores": torch.tensor(scores, dtype=torch.float32),
    "masks": torch.as_tensor(masks, dtype=torch.float32),
  }


def _random_output(seed, num, height=H, width=W):
  """Boxes of any size, some empty, some partly or wholly out of the frame."""
  rng = np.random.default_rng(seed)
  high = 12 + np.array([[[width], [height]]])
  places = rng.uniform(-12, high, (num, 2, 2))  # x and y, low and high
  is_sorted = rng.random(num) < 0.9
  places[is_sorted] = np.sort(places[is_sorted])
  is_whole = rng.random(num) < 0.3  # on a pixel's edge
  places[is_whole] = places[is_whole].round()
  labels = rng.choice([1, 2, 3, 4, 5, 6, IGNORE], num)
  scores = rng.choice([0.1, 0.4999, 0.5, 0.8, 1.0], num)
  # Not cut to the boxes, and often just one half.
  masks = rng.choice([0.0, 0.4999, 0.5, 1.0], (num, 1, height, width))
  return _output(places.swapaxes(1, 2), labels, masks, scores)


def _assert_equal(got, expected):
  assert (got[0].dtype, got[1].dtype) == (np.uint8, np.float32)
  for ours, theirs in zip(got, expected, strict=True):
    np.testing.assert_array_equal(ours, theirs)


def _assert_equals_numpy(output, device, groups=GROUPS, height=H, width=W):
  there = {name: part.to(device) for name, part in output.items()}
  got = detector.labels_on_device(there, groups, height, width)
  instances = detector.to_instances(output)
  expected = labels_lib.from_instances(instances, groups, height, width)
  _assert_equal(got, expected)
  return got


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None, max_examples=150)
@example(seed=0, num=0, wanted=None)
@given(
  seed=st.integers(0, 2**32 - 1),
  num=st.integers(0, 8),
  wanted=st.none() | st.sets(st.sampled_from(NAMES[1:]), min_size=1),
)
def test_random_outputs_equal_numpy(device, seed, num, wanted):
  groups, size = GROUPS, (H, W)
  if wanted is not None:
    groups = labels_lib.parse_groups(";".join(sorted(wanted)), NAMES)
    size = np.random.default_rng(seed).integers(1, 90, 2).tolist()
  output = _random_output(seed, num, *size)
  _assert_equals_numpy(output, device, groups, *size)


def test_jax_gets_what_torch_made_without_a_copy_and_keeps_it(monkeypatch):
  make, places, kept = detector._make, [], []

  def noted(*args):
    tensors = make(*args)
    places.append([tensor.data_ptr() for tensor in tensors])
    return tensors

  monkeypatch.setattr(detector, "_make", noted)
  for seed in range(50):
    output = _random_output(seed, 3)
    instances = detector.to_instances(output)
    expected = labels_lib.from_instances(instances, GROUPS, H, W)
    got = detector.labels_on_device(output, GROUPS, H, W)
    assert [x.unsafe_buffer_pointer() for x in got] == places[-1]
    assert all(x.devices() == {jax.devices()[0]} for x in got)
    kept.append((got, expected))
  for got, expected in kept:
    _assert_equal(got, expected)


@pytest.mark.parametrize("where", ["another device", "no jax"])
def test_numpy_where_jax_cannot_have_it(monkeypatch, where):
  if where == "no jax":
    monkeypatch.delitem(sys.modules, "jax")
  else:
    gpu = types.SimpleNamespace(platform="gpu", local_hardware_id=0)
    monkeypatch.setattr(jax, "devices", lambda: [gpu])
  got = _assert_equals_numpy(_random_output(1, 3), "cpu")
  assert all(type(part) is np.ndarray for part in got)
  assert ("jax" in sys.modules) == (where != "no jax")


class _InTorch(loop_run.Teacher):
  """Has its answers in torch, and hands them over."""

  def label(self, sample, groups):
    # A copy: what JAX is given must lie as torch would have it.
    made = labels_lib.from_class_map(self(sample), groups)
    return Labels(*(detector.hand_over(torch.tensor(part)) for part in made))


def test_run_is_the_same_with_labels_of_jax(tmp_path):
  stream, runs = scenes.Stream(has_truth=False), []
  for kind in (_InTorch, loop_run.Teacher):
    path = tmp_path / kind.__name__
    path.mkdir()
    job = loop_run.job(path, stream, kind(stream), eval_every=7)
    executor = loop_run.executor()
    run = loop.Loop(job, path, sources.InStep(), executor=executor)
    summary = run.run()
    assert summary["finished"] and summary["eval_frames"] == 5
    assert type(run.reference.classes) is np.ndarray
    runs.append(small_run.lines(path))
  assert runs[0] == runs[1]
  assert sum(line["num_updates"] for line in runs[0]) > 0


@pytest.mark.parametrize("device", DEVICES)
def test_detector_labels_alike_on_both_ways(device, monkeypatch):
  monkeypatch.setattr(labels_lib, "MIN_SCORE", 0.1)  # its weights are random
  sample = Sample(0, scenes.coloured_squares(1, 96, 128)[0][0], None)
  groups = labels_lib.parse_groups("", NAMES)
  torch.manual_seed(0)
  made = tiny.build(score_thresh=0.0), NAMES, torch.device(device)
  teacher = detector.Detector(*made, labels_on_device=True)
  there = base.label(teacher, sample, groups)
  monkeypatch.setattr(detector, "labels_on_device", None)
  # By default on the host where the device is a CPU.
  options = {} if device == "cpu" else {"labels_on_device": False}
  here = base.label(detector.Detector(*made, **options), sample, groups)
  assert type(here.classes) is np.ndarray
  assert here.classes.any() and (here.weights == 5).any()
  _assert_equal(there, here)

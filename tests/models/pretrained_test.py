"""A student that starts from a file: the same answers over other classes."""

import os

import jax
import numpy as np
import pytest
import safetensors.numpy

from ojd import labels
from ojd.models import pretrained
from ojd.models import student as student_lib
from tests.reference.compare import equal
from tests.reference.refusals import refused

NAMES = ("background", "person", "car", "bus", "dog")
KERNEL = "enc1/conv1/conv/kernel"
FRAME = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)


def _student(num_classes):
  return student_lib.create("jitnet", num_classes)


def _trained(names=NAMES, seed=1):
  """Random weights, rounded as a file rounds them."""
  params = _student(len(names)).init(jax.random.key(seed), FRAME)
  rng = np.random.default_rng(seed)
  flat = {
    name: (value + 0.1 * rng.standard_normal(value.shape))
    .astype(np.float16)
    .astype(np.float32)
    for name, value in jax.device_get(pretrained.flatten(params)).items()
  }
  return pretrained.Pretrained(flat, tuple(names), {"model": "jitnet"})


def _start(source, text, names):
  """Logits, and flat parameters, of a student of other groups of `names`."""
  groups = labels.parse_groups(text, names)
  student = pretrained.start_from(_student(len(groups.names)), source, groups)
  params = student.init(jax.random.key(7), FRAME)
  return student.apply(params, FRAME), pretrained.flatten(params)


def _logits(*given):
  return np.asarray(_start(*given)[0])


def test_file_gives_back_what_was_saved(tmp_path):
  path, source = tmp_path / "student.safetensors", _trained()
  pretrained.save(path, source)
  loaded = pretrained.load(path)
  assert path.stat().st_size <= 2_000_000
  assert loaded.class_names == NAMES and loaded.about == {"model": "jitnet"}
  equal(loaded.params, source.params)
  # Of the same classes every weight is taken as it is.
  equal(_start(loaded, "", NAMES)[1], source.params)
  # Transposed arrays are written as they read.
  x = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
  for dtype in (np.float16, np.float32):
    pretrained.save(path, pretrained.Pretrained({"x": x}, (), {}), dtype)
    equal(pretrained.load(path).params, {"x": x})


def test_groups_are_averages_and_order_is_by_name():
  source = _trained()
  whole = _logits(source, "", NAMES)
  teacher = ("background", "dog", "bus", "car", "person")
  got = _logits(source, "auto=car,bus;person", teacher)
  expected = np.stack(
    [whole[..., 0], (whole[..., 2] + whole[..., 3]) / 2, whole[..., 1]], -1
  )
  np.testing.assert_allclose(got, expected, atol=1e-4)
  # A group that is named like a known class takes it.
  got = _logits(source, "car=van,lorry", ("background", "van", "lorry"))
  np.testing.assert_allclose(got[..., 1], whole[..., 2], atol=1e-4)


def test_unknown_class_is_fresh_and_leaves_the_others():
  source = _trained()
  whole = _logits(source, "", NAMES)
  got, params = _start(source, "", ("background", "zebra", "dog"))
  np.testing.assert_allclose(got[..., [0, 2]], whole[..., [0, 4]], atol=1e-4)
  fresh = _student(3).init(jax.random.key(7), FRAME)["logits"]["kernel"]
  kernel = params["logits/kernel"]
  np.testing.assert_array_equal(kernel[..., 1], fresh[..., 1])
  assert not np.allclose(kernel[..., 1], source.params["logits/kernel"][..., 1])


@pytest.mark.parametrize("num_new", [6, 15])
def test_more_classes_widen_the_last_layer_and_change_no_answer(num_new):
  """Beyond 8 classes, then 16, the layer below the logits gets wider."""
  source = _trained()
  whole = _logits(source, "", NAMES)
  names = (*NAMES, *(f"new{i}" for i in range(num_new)))
  got = _logits(source, "", names)
  np.testing.assert_allclose(got[..., :5], whole, atol=1e-4)


def test_fewer_classes_keep_the_channels_that_count():
  names = ("background", *(f"c{i}" for i in range(11)))
  source = _trained(names)
  # Of sixteen channels eight mean something to c0 and the background.
  kernel = source.params["logits/kernel"]
  silent = np.arange(1, 16, 2)
  kernel[:, :, silent, :2] = 0
  whole = _logits(source, "", names)
  got = _logits(source, "c0", names)
  np.testing.assert_allclose(got, whole[..., :2], atol=1e-4)


def test_features_alone_leave_the_other_layers_fresh():
  whole = _trained()
  features = {n: x for n, x in whole.params.items() if n.startswith("enc")}
  source = pretrained.Pretrained(features, (), {"model": "jitnet"})
  _, given = _start(source, "", ("background", "zebra"))
  fresh = pretrained.flatten(_student(2).init(jax.random.key(7), FRAME))
  assert fresh.keys() > features.keys()
  equal(given, fresh | features)


@pytest.mark.parametrize("damage", ["part", "name", "nothing"])
def test_features_that_do_not_fit_are_one_line(damage):
  whole = _trained().params
  features = {n: x for n, x in whole.items() if n.startswith("enc1/")}
  if damage == "name":
    features["enc9/conv/kernel"] = features[KERNEL]
  elif damage == "part":
    del features[KERNEL]
  source = pretrained.Pretrained(
    features if damage != "nothing" else {}, (), {}
  )
  with refused("--init: the file"):
    _start(source, "", NAMES)


@pytest.mark.parametrize(
  ("damage", "words"),
  [
    (lambda path, params: path.unlink(), "No such file"),
    (lambda path, params: path.write_bytes(b"\x10" * 100), "not a file"),
    (lambda path, params: os.truncate(path, 1_000_000), "not a file"),
    (lambda path, params: safetensors.numpy.save_file(params, path), "not a"),
    ({KERNEL: np.full((1, 2), np.nan, np.float32)}, "not finite"),
    ({KERNEL: np.zeros((3, 3, 4, 4), np.float32)}, KERNEL),
    ({KERNEL: None}, KERNEL),
  ],
)
def test_other_files_are_one_line(tmp_path, damage, words):
  path, source = tmp_path / "student.safetensors", _trained()
  if isinstance(damage, dict):
    source.params.update(damage)
  kept = {name: x for name, x in source.params.items() if x is not None}
  pretrained.save(path, source._replace(params=kept))
  if callable(damage):
    damage(path, kept)
  with refused("--init", words):
    _start(pretrained.load(path), "", NAMES)

"""A student that starts from a file: the same answers over other classes."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from ojd import labels
from ojd.errors import UserError
from ojd.models import pretrained
from ojd.models import student as student_lib

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


def _logits(source, text, names):
  """Logits of a student over groups of `names` that starts from `source`."""
  groups = labels.parse_groups(text, names)
  student = pretrained.start_from(_student(len(groups.names)), source, groups)
  return np.asarray(
    student.apply(student.init(jax.random.key(7), FRAME), FRAME)
  )


def test_file_gives_back_what_was_saved(tmp_path):
  path, source = tmp_path / "student.safetensors", _trained()
  pretrained.save(path, source)
  loaded = pretrained.load(path)
  assert path.stat().st_size <= 2_000_000
  assert loaded.class_names == NAMES and loaded.about == {"model": "jitnet"}
  assert loaded.params.keys() == source.params.keys()
  for name, value in source.params.items():
    np.testing.assert_array_equal(loaded.params[name], value)


def test_transposed_arrays_are_written_as_they_read(tmp_path):
  x = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
  for dtype in (np.float16, np.float32):
    path = tmp_path / "student.safetensors"
    pretrained.save(path, pretrained.Pretrained({"x": x}, (), {}), dtype)
    np.testing.assert_array_equal(pretrained.load(path).params["x"], x)


def test_same_classes_take_every_weight_as_it_is():
  source = _trained()
  groups = labels.parse_groups("", NAMES)
  student = pretrained.start_from(_student(5), source, groups)
  given = pretrained.flatten(student.init(jax.random.key(3), FRAME))
  for name, value in source.params.items():
    np.testing.assert_array_equal(given[name], value)


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
  got = _logits(source, "", ("background", "zebra", "dog"))
  np.testing.assert_allclose(got[..., [0, 2]], whole[..., [0, 4]], atol=1e-4)
  groups = labels.parse_groups("", ("background", "zebra", "dog"))
  fresh = _student(3).init(jax.random.key(7), FRAME)["logits"]["kernel"]
  student = pretrained.start_from(_student(3), source, groups)
  kernel = student.init(jax.random.key(7), FRAME)["logits"]["kernel"]
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
  groups = labels.parse_groups("", ("background", "zebra"))
  student = pretrained.start_from(_student(2), source, groups)
  fresh = pretrained.flatten(_student(2).init(jax.random.key(7), FRAME))
  given = pretrained.flatten(student.init(jax.random.key(7), FRAME))
  assert given.keys() == fresh.keys() > features.keys()
  for name, value in given.items():
    expected = features.get(name, fresh[name])
    np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("damage", ["part", "name", "nothing"])
def test_features_that_do_not_fit_are_one_line(damage):
  whole = _trained().params
  features = {n: x for n, x in whole.items() if n.startswith("enc1/")}
  if damage == "part":
    del features[KERNEL]
  elif damage == "name":
    features["enc9/conv/kernel"] = features[KERNEL]
  else:
    features = {}
  groups = labels.parse_groups("", NAMES)
  with pytest.raises(UserError, match="--init: the file") as error:
    source = pretrained.Pretrained(features, (), {})
    pretrained.start_from(_student(5), source, groups)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "damage", ["absent", "garbage", "torn", "bare", "nan", "shape", "name"]
)
def test_other_files_are_one_line(tmp_path, damage):
  path, source = tmp_path / "student.safetensors", _trained()
  if damage == "nan":
    source.params[KERNEL][0] = np.nan
  elif damage == "shape":
    source.params[KERNEL] = np.zeros((3, 3, 4, 4), np.float32)
  elif damage == "name":
    del source.params[KERNEL]
  pretrained.save(path, source)
  if damage == "absent":
    path.unlink()
  elif damage == "garbage":
    path.write_bytes(b"\x10" * 100)
  elif damage == "torn":
    path.write_bytes(path.read_bytes()[:-1000])
  elif damage == "bare":
    safetensors.numpy.save_file(source.params, path)
  groups = labels.parse_groups("", NAMES)
  with pytest.raises(UserError, match="--init") as error:
    pretrained.start_from(_student(5), pretrained.load(path), groups)
  assert "\n" not in str(error.value)
  if damage in ("shape", "name"):
    assert KERNEL in str(error.value)

"""Trained changes written to a file, and systems that start from it."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from ojd import systems
from ojd.errors import UserError
from ojd.models import pretrained
from ojd.models.delta import changes, files, skip, training
from ojd.models.delta.convert import convert
from ojd.systems.delta import refreshed
from tests.reference import delta_clips, layered_student
from tests.reference.compare import equal

STUDENT, FRAMES = layered_student.STUDENT, layered_student.FRAMES
NAMES = ("background", "red", "green")


def _trained():
  """A student of which one layer has chosen a convolution like its own."""
  net = convert(STUDENT, training.gated(changes.full(), changes.pair(gamma=4)))
  params = delta_clips.params(STUDENT, net)
  params["delta"]["dec2"]["conv"]["gate"] = np.float32(1)
  delta = training.deploy(params["delta"], net.converted)
  return {"model": params["model"], "delta": delta}


def _save(path, params, form="convolutions", **about):
  files.save(path, params, form, NAMES, about)
  return path


def _start(path):
  model, trained = files.split(pretrained.load(path))
  params = traverse_util.unflatten_dict(model.params, sep="/")
  return params, files.convert_trained(STUDENT, trained), trained


def test_system_starts_from_what_was_written(tmp_path):
  params = _trained()
  path = _save(tmp_path / "a.safetensors", params, steps=1)
  found = pretrained.load(path)
  assert found.class_names == NAMES
  assert found.about == {"steps": 1, "form": "convolutions"}
  model, net, trained = _start(path)
  equal(model, params["model"])
  equal(trained.delta, params["delta"])
  first = trained.delta
  assert "kernel" in first["dec2"]["conv"] and "first" in first["dec1"]["conv"]
  student = STUDENT._replace(init=lambda rng_key, frame: model)
  system = refreshed(net, systems.frozen(student), trained=trained)
  state = jax.jit(system.init)(jax.random.key(0), FRAMES[0])
  equal(state.delta, first)
  predict = jax.jit(system.predict)
  for frame in FRAMES[:2]:
    state, classes = predict(state, frame)
  assert classes.shape == FRAMES[0].shape[:2]


def test_gates_and_their_blocks_are_read_back(tmp_path):
  rule = skip.skip(skip.by_gumbel(), block=4)
  net = convert(STUDENT, rule)
  params = delta_clips.params(STUDENT, net)
  path = _save(tmp_path / "a.safetensors", params, "skip", block=4)
  _, again, trained = _start(path)
  assert trained.form == "skip" and trained.block == 4
  _, cache = net.apply_key(params, FRAMES[0])
  found, expected = (
    jax.jit(n.apply_delta)(params, cache, FRAMES[1]) for n in (again, net)
  )
  np.testing.assert_array_equal(found.logits, expected.logits)
  assert found.gmac == expected.gmac


def test_other_files_have_no_changes_or_are_refused(tmp_path):
  flat = pretrained.flatten(_trained()["model"])
  given = pretrained.Pretrained(flat, NAMES, {})
  model, trained = files.split(given)
  assert model is given and trained is None
  path = _save(tmp_path / "a.safetensors", _trained(), "sums")
  with pytest.raises(UserError, match="of no known form: sums"):
    files.split(pretrained.load(path))
  path = _save(tmp_path / "b.safetensors", _trained(), block=3)
  with pytest.raises(UserError, match="gates of blocks of 3"):
    files.split(pretrained.load(path))
  path = _save(tmp_path / "c.safetensors", _trained())
  _, trained = files.split(pretrained.load(path))
  trained.delta["dec1"]["conv"]["first"] = np.zeros((3, 1, 4, 2), np.float32)
  with pytest.raises(UserError, match="of another network: ") as error:
    files.convert_trained(STUDENT, trained)
  assert "\n" not in str(error.value)

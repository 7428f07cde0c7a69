"""Trained changes written to a file, and systems that start from it."""

import jax
import numpy as np
import pytest

from ojd.errors import RequestError
from ojd.models import pretrained
from ojd.models.delta import changes, files, gates
from ojd.models.delta.convert import convert
from ojd.models.student import from_linen
from ojd.systems import delta as delta_lib
from ojd.systems import jit as jit_lib
from tests.reference import delta_clips, layered_student, small_run

STUDENT, FRAMES = layered_student.STUDENT, layered_student.FRAMES
NAMES = ("background", "red", "green")


def _trained():
  net = convert(STUDENT, gates.gated(changes.full(), changes.pair(gamma=4)))
  params = delta_clips.params(STUDENT, net)
  params["delta"]["dec2"]["conv"]["gate"] = np.float32(1)
  delta = gates.deploy(params["delta"], net.sites)
  params = {"model": params["model"], "delta": delta}
  return net, files.Trained(params, NAMES, {"steps": 1})


def test_system_starts_from_what_was_written(tmp_path):
  net, trained = _trained()
  files.save(tmp_path / "a.safetensors", trained)
  found = files.load(tmp_path / "a.safetensors")
  assert found.class_names == NAMES and found.about == {"steps": 1}
  jax.tree.map(np.testing.assert_array_equal, found.params, trained.params)
  student, net, first = files.start_from(STUDENT, found)
  assert "kernel" in first["dec2"]["conv"] and "first" in first["dec1"]["conv"]
  system = delta_lib.delta(net, jit_lib.frozen(student), first=first)
  state = jax.jit(system.init)(jax.random.key(0), FRAMES[0])
  jax.tree.map(np.testing.assert_array_equal, state.delta, first)
  predict = jax.jit(system.predict)
  for frame in FRAMES[:2]:
    state, classes = predict(state, frame)
  assert classes.shape == FRAMES[0].shape[:2]


def test_other_files_are_refused(tmp_path):
  _, trained = _trained()
  path = tmp_path / "a.safetensors"
  flat = pretrained.flatten(trained.params["model"])
  pretrained.save(path, pretrained.Pretrained(flat, NAMES, {}))
  with pytest.raises(RequestError, match="not a student with trained changes"):
    files.load(path)
  other = from_linen(small_run.SmallNet(3))
  with pytest.raises(RequestError, match="of another network: ") as error:
    files.start_from(other, trained)
  assert "\n" not in str(error.value)

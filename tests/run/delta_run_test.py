"""Runs of students of two speeds: their work, their files, replayed."""

import dataclasses

import jax
import numpy as np
import pytest

from ojd import specs
from ojd.errors import UserError
from ojd.models import student as student_lib
from ojd.models.delta import changes, conversion, files, training
from ojd.models.delta.conversion import convert
from ojd.models.student import from_linen
from ojd.run import recorded_run, replay, sweep, workdir
from tests.reference import layered_student, small_run

NUM_FRAMES, EVERY = 18, 3
NAMES = ("background", "person")
FLAGS = {"model": "layered", "checkpoint_every": 1, "u_max": 1}
BASE = dataclasses.replace(small_run.CONFIG, num_frames=NUM_FRAMES, **FLAGS)
NO_LEARNING = {"delta_min": None, "u_max": None}


@pytest.fixture(scope="module", autouse=True)
def _networks():
  layered = specs.Entry(lambda n: layered_student.LayeredNet(n))
  with pytest.MonkeyPatch.context() as patch:
    known = {"layered": layered, **small_run.MODELS}
    patch.setattr(student_lib, "MODELS", known)
    yield


def _run(path, **flags):
  return small_run.run(path, BASE, **flags).summary


def _student():
  return from_linen(layered_student.LayeredNet(len(NAMES)))


def _gmac(change=None):
  """By hand: of the whole student, or with a change in the inner layers."""
  found = conversion.trace(_student(), 48, 64)
  inner = [s.path for s in conversion.converted(found)] if change else []
  macs = (change.macs(s) if s.path in inner else s.macs for s in found)
  return sum(macs) / 1e9


@pytest.mark.parametrize(
  "system",
  ["delta", pytest.param("skip:refresh_every=3", marks=pytest.mark.slow)],
)
def test_run_is_resumed_and_replayed_bit_for_bit(system, tmp_path):
  whole = _run(tmp_path / "whole", system=system)
  parts = tmp_path / "parts"
  assert not _run(parts, system=system, stop=11)["finished"]
  resumed = _run(parts, system=system)
  assert small_run.counts(resumed) == small_run.counts(whole)
  run = recorded_run.read(parts)
  found = replay.replay(run)
  assert found.is_equal and found.num_judged == NUM_FRAMES
  with pytest.raises(UserError, match="a student of two speeds"):
    sweep.sweep(run, {"learning_rate": [0.1, 0.2]})
  assert 0 < whole["gmac_per_frame"] < _gmac()


def test_work_is_that_of_whole_frames_and_of_those_between(tmp_path):
  found = _run(tmp_path / "a", system="delta:frozen:gamma=2", **NO_LEARNING)
  pair = changes.pair(gamma=2)
  expected = (_gmac() + (EVERY - 1) * _gmac(pair)) / EVERY
  assert found["gmac_per_frame"] == pytest.approx(expected, rel=1e-5)
  plain = _run(tmp_path / "b", system="frozen")
  assert plain["gmac_per_frame"] == pytest.approx(_gmac())
  teacher = _run(tmp_path / "c", system="teacher")
  assert teacher["gmac_per_frame"] is None


def test_trained_changes_are_what_answers_between(tmp_path):
  path = tmp_path / "delta.safetensors"
  gated = training.gated(changes.full(), changes.pair(gamma=2))
  net = convert(_student(), gated)
  params = net.init(jax.random.key(3), np.zeros((48, 64, 3), np.uint8))
  params = jax.tree.map(np.array, params)
  gate = conversion.at(params["delta"], net.converted[0].path)
  gate["gate"] = np.float32(1)
  params["delta"] = training.deploy(params["delta"], net.converted)
  files.save(path, params, "convolutions", NAMES, {"model": "layered"})
  flags = NO_LEARNING | {"init": str(path)}
  run = lambda system: _run(tmp_path / system, system=system, **flags)
  found, plain = run("delta:frozen"), run("frozen")
  # One layer chose a convolution like its own, the others pairs.
  opened = conversion.converted(conversion.trace(_student(), 48, 64))[0]
  pair = changes.pair(gamma=2)
  between = _gmac(pair) + (opened.macs - pair.macs(opened)) / 1e9
  expected = (_gmac() + (EVERY - 1) * between) / EVERY
  assert found["gmac_per_frame"] == pytest.approx(expected, rel=1e-5)
  assert plain["gmac_per_frame"] == pytest.approx(_gmac())
  with pytest.raises(UserError, match="are of --system=delta, not of skip"):
    run("skip")
  with pytest.raises(UserError, match="trained changes has no use for gamma"):
    run("delta:frozen:gamma=4")


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ({"system": "delta:gamma=9"}, "gamma=9: no layer has more than 8"),
    ({"model": "jitnet"}, "no convolution between its first and its last"),
  ],
)
def test_impossible_students_are_refused_before_anything_is_written(
  flags, words, tmp_path
):
  with pytest.raises(UserError, match=words):
    _run(tmp_path / "a", **{"system": "delta"} | flags)
  assert not (tmp_path / "a" / workdir.METRICS).exists()

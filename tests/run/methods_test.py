"""Every method through the runner: stopped, resumed, replayed."""

import dataclasses
import functools
import importlib
import itertools
import shutil

import numpy as np
import pytest
import safetensors.numpy

from ojd import systems
from ojd.errors import UserError
from ojd.pretraining import trainer
from ojd.run import (
  build,
  export,
  fork,
  preparing,
  recorded_run,
  replay,
  sweep,
  workdir,
)
from ojd.streams import base as streams
from ojd.teachers import base as teachers
from tests.reference import small_run
from tests.reference.refusals import refused

offline_oracle = importlib.import_module("ojd.systems.offline_oracle")
BASE = dataclasses.replace(
  small_run.CONFIG, num_frames=24, checkpoint_every=2, u_max=1, seed=5
)


def _run(path, name, stop=None, base=BASE, **flags):
  """The summary, and what was said meanwhile."""
  notes = []
  flags = {"base": base, "stop": stop, "notes": notes, "system": name} | flags
  return small_run.run(path, **flags).summary, notes


@pytest.fixture(scope="module", autouse=True)
def _short_rounds(small_students):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(offline_oracle, "_MIN_STEPS", 12)
    patch.setattr(offline_oracle, "_EPOCHS", 1)
    patch.setattr(offline_oracle, "_REPORT_EVERY", 4)
    yield


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
  """The folder of a method's run, made when it is first asked for."""

  @functools.cache
  def whole(name):
    path = tmp_path_factory.mktemp("wholes") / name
    _run(path, name)
    return path

  return whole


@pytest.mark.parametrize(
  "name",
  ["copy_last:stride=4", "flow:stride=4", "osvos:mode=B", "offline_oracle"]
  + ["jit_plus", "jit_flow:plus"],
)
def test_run_is_resumed_and_replayed_bit_for_bit(
  name, wholes, tmp_path, monkeypatch
):
  whole, parts = wholes(name), tmp_path / "parts"
  summary = workdir.read_summary(whole)
  assert summary["finished"] and summary["num_frames"] == 24
  assert summary["paper_ms"] == systems.costs_of(systems.bind(name))._asdict()
  page = (whole / workdir.REPORT / "index.html").read_text()
  assert f"{summary['speedup_paper_model']:.1f}\u00d7" in page
  # A method that prepares is prepared by then.
  assert not _run(parts, name, stop=11)[0]["finished"]
  with monkeypatch.context() as patch:
    patch.delattr(trainer, "train")  # once is enough
    resumed, _ = _run(parts, name)
  assert small_run.lines(parts) == small_run.lines(whole)
  assert small_run.counts(resumed) == small_run.counts(summary)
  assert resumed["resumed"] == 1
  monkeypatch.delattr(teachers, "make_teacher")
  found = replay.replay(recorded_run.read(parts))
  assert found.is_equal and found.start.t == 0 and found.num_judged == 24
  assert found.num_keys == summary["num_key_frames"]


def test_accuracies_are_ordered_as_what_the_methods_know(wholes):
  of = lambda name: workdir.read_summary(wholes(name))["miou"]["mean"]
  assert of("teacher") == 1.0 > of("flow:stride=4")
  assert of("flow:stride=4") > of("copy_last:stride=4") > 0.2


def test_oracle_that_was_stopped_goes_on_training(wholes, tmp_path):
  whole, parts = wholes("offline_oracle"), tmp_path / "parts"
  # Once while the frames are labelled, once amid the training.
  album = parts / workdir.PREPARED / "album"
  for file in (album / "frames.raw", album / "about.json"):
    turns = itertools.count()
    stop = lambda file=file, turns=turns: file.exists() and next(turns) >= 4
    summary, _ = _run(parts, "offline_oracle", stop)
    assert not summary["finished"] and summary["num_frames"] == 0
    assert not (parts / workdir.CHECKPOINTS).exists()
  summary, notes = _run(parts, "offline_oracle")
  assert summary["finished"] and summary["seconds"]["pretrain"] > 0
  words = " ".join(notes)
  assert "step 4 of" not in words  # it was made before
  assert "training beforehand: step 12 of 12" in words
  name = f"{workdir.PREPARED}/{offline_oracle.STUDENT}"
  load = safetensors.numpy.load_file
  np.testing.assert_equal(load(parts / name), load(whole / name))
  # Nothing is kept but the student.
  files = {x.name for x in (parts / workdir.PREPARED).iterdir()}
  assert files == {offline_oracle.STUDENT, "recipe.json"}
  # Training beforehand is no work of the run.
  summary = workdir.read_summary(whole)
  assert summary["num_key_frames"] == summary["num_updates"] == 0
  apart = ("pretrain", "compile", "evaluate")
  work = sum(s for n, s in summary["seconds"].items() if n not in apart)
  assert summary["fps"] == pytest.approx(24 / work, rel=0.01)


def test_oracle_learns_every_fifth_frame_of_the_run(tmp_path, monkeypatch):
  flags = {"num_frames": 13, "system": "offline_oracle"}
  job = build.make_job(small_run.config(tmp_path, **flags))
  _, frames, truth, *_ = zip(*job.stream.read(), strict=True)
  for most, expected in ((6_000, [0, 5, 10]), (2, [0, 7])):
    monkeypatch.setattr(offline_oracle, "MAX_FRAMES", most)
    folder = tmp_path / str(most)
    album = offline_oracle.collect(preparing.preparation(job, folder))
    np.testing.assert_array_equal(album.frames, [frames[t] for t in expected])
    classes = [job.groups.lookup[truth[t]] for t in expected]
    np.testing.assert_array_equal(album.labels.classes, classes)
    assert set(np.unique(album.labels.weights)) == {1, 5}
    # The second time they come from the disk.
    monkeypatch.delattr(teachers, "label")
    again = offline_oracle.collect(preparing.preparation(job, folder))
    np.testing.assert_array_equal(again.frames, album.frames)
    monkeypatch.undo()


def test_oracle_of_a_stream_without_an_end_is_refused(tmp_path, monkeypatch):
  open_stream = streams.open_stream
  for change, words in (
    ({"is_live": True}, "is live"),
    ({"num_frames": None}, "give --num_frames"),
  ):

    def changed(*args, change=change):
      stream = open_stream(*args)
      stream.spec = stream.spec._replace(**change)
      return stream

    monkeypatch.setattr(streams, "open_stream", changed)
    with refused(words):
      _run(tmp_path / "run", "offline_oracle", num_frames=None)
    assert not (tmp_path / "run").exists()


def test_oracle_whose_student_is_gone_cannot_be_replayed(wholes, tmp_path):
  path = shutil.copytree(wholes("offline_oracle"), tmp_path / "copy")
  (path / workdir.PREPARED / offline_oracle.STUDENT).unlink()
  with pytest.raises(UserError, match="student.safetensors, which is missing"):
    replay.replay(recorded_run.read(path))


def test_what_makes_no_sense_is_refused_in_one_line(tmp_path):
  path = tmp_path / "run"
  _run(path, "flow:slow", num_frames=10)
  run = recorded_run.read(path)
  with pytest.raises(UserError, match="--export: --system=flow:slow has no"):
    export.export(run, 3, tmp_path / "s.safetensors")
  with pytest.raises(UserError, match="delta_min has no effect"):
    sweep.sweep(run, {"delta_min": [2, 3]})
  config = dataclasses.replace(run.config, system="offline_oracle")
  with pytest.raises(UserError, match="give another --system"):
    fork.make_job(fork.open_fork(path, 4), config)
  with pytest.raises(UserError, match="segments one class, not"):
    flags = {"stream": "synthetic:street", "classes": "person;car"}
    _run(tmp_path / "many", "osvos", **flags)
  assert not (tmp_path / "many").exists()


def test_sweep_of_strides_of_flow(tmp_path):
  """Trials whose teacher is asked at other times share one callback."""
  first, _ = _run(tmp_path / "4", "flow:stride=4", num_frames=12)
  trials = sweep.sweep(recorded_run.read(tmp_path / "4"), {"stride": [4, 6]})
  assert [trial.num_keys for trial in trials] == [3, 2]
  other, _ = _run(tmp_path / "6", "flow:stride=6", num_frames=12)
  for trial, summary in zip(trials, (first, other), strict=True):
    assert trial.miou == pytest.approx(summary["miou"]["mean"], abs=1e-9)
    assert round(trial.speedup, 3) == summary["speedup_paper_model"]

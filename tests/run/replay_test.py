"""Replayed runs: what is equal, what is found where something was changed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from ojd.errors import UserError
from ojd.models import export as export_lib
from ojd.models import pretrained
from ojd.run import (
  export,
  recorded_run,
  replay,
  state_arrays,
  trajectory,
  workdir,
)
from ojd.teachers import base as teachers
from tests.reference import small_run


@pytest.fixture(scope="module")
def whole(small_students, tmp_path_factory):
  path = tmp_path_factory.mktemp("runs") / "whole"
  small_run.run(path)
  return path


@pytest.fixture
def copy(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / "copy")


def _replay(path, *frames):
  return replay.replay(recorded_run.read(path), *frames)


def _steps(path):
  names = (p.name for p in (path / workdir.CHECKPOINTS).iterdir())
  return sorted(int(name) for name in names if name.isdecimal())


def test_untouched_run_is_bit_equal_without_its_teacher(whole, monkeypatch):
  monkeypatch.delattr(teachers, "make_teacher")
  found = replay.replay(recorded_run.read(whole))
  rows = recorded_run.read(whole).rows
  assert found.is_equal and found.start.t == 0 and found.end == 40
  assert found.num_keys == sum(row["is_key"] for row in rows)
  assert found.num_updates == sum(row["num_updates"] for row in rows) > 0
  assert found.num_judged == 40
  assert found.num_checkpoints == len(_steps(whole)) >= 2
  assert found.miou_here == found.miou_there
  there = np.mean([row["eval_miou"] for row in rows])
  assert found.miou_there == pytest.approx(there)


def test_run_with_norms_of_key_frames_is_replayed_alike(whole, tmp_path):
  small_run.run(tmp_path, system="jit:norm=key_frame")
  found = _replay(tmp_path)
  assert found.is_equal and found.num_checkpoints >= 2
  # A checkpoint between key frames holds the norms of the last one.
  part = _replay(tmp_path, _steps(tmp_path)[-2] + 1)
  assert part.is_equal and part.start.is_checkpoint
  assert found.miou_here != _replay(whole).miou_here


def test_a_part_begins_at_the_nearest_checkpoint(whole):
  middle = _steps(whole)[-2]
  found = _replay(whole, middle + 1, middle + 3)
  assert found.is_equal and found.start.is_checkpoint
  assert (found.start.t, found.end) == (middle, middle + 4)
  before = _replay(whole, 0, 3)
  assert before.is_equal and not before.start.is_checkpoint


def _with_other_log(path, change):
  """The run, in whose log every record went through `change`."""
  folder = path / workdir.TRAJECTORY
  old = trajectory.Trajectory(folder)
  records = [change(record) for record in old]
  (folder / trajectory.LOG).unlink()
  with trajectory.TrajectoryWriter(folder, old.identity) as writer:
    for record in records:
      writer.append(record)
  return recorded_run.read(path)


def test_other_parameters_are_named_with_frame_leaf_and_size(whole, copy):
  """One number of one array of a checkpoint is another one."""
  run = recorded_run.read(copy)
  _, checkpointer, _ = recorded_run.open_again(run)
  at = _steps(copy)[-2]
  snapshot, _ = checkpointer.latest(at_most=at)
  kernel = snapshot.state.params["logits"]["kernel"]
  snapshot.state.params["logits"]["kernel"] = kernel.at[0, 0, 0, 0].add(0.5)
  later = [t for t in _steps(copy) if t > at]
  checkpointer._latest = None
  checkpointer._keep_every = 1
  checkpointer.save(snapshot)
  checkpointer.close()
  # Saving a checkpoint drops those after it.
  for t in later:
    name = f"{workdir.CHECKPOINTS}/{t}"
    shutil.copytree(whole / name, copy / name)
  found = _replay(copy, at)
  assert found.start.t == at and not found.is_equal
  keys = [t for t, kind in run.log.records if kind == "key" and t >= at]
  if keys:
    assert found.divergence.t <= keys[0]
  assert found.num_checkpoints == len(later)
  assert found.largest.t == later[-1] and found.largest.size > 0.01
  assert found.miou_there != found.miou_here


def _params(path):
  run = recorded_run.read(path)
  job, checkpointer, _ = recorded_run.open_again(run)
  try:
    snapshot, _ = checkpointer.latest()
  finally:
    checkpointer.close()
  return state_arrays.parameters(snapshot.state)


@pytest.mark.parametrize("leaf", ["", "logits.kernel"])
def test_other_decision_on_record_is_found_at_its_frame(copy, leaf):
  """The log says other numbers of the second key frame, or another array."""
  seen, names = [], sorted(_params(copy))

  def change(record):
    seen.append(record.t)
    if len(seen) != 2:
      return record
    other = {"num_updates": 99, "loss": 5.0}
    if leaf:
      i, hashes = 4 * names.index(leaf), record.decision.leaf_hashes
      other = {"leaf_hashes": f"{hashes[:i]}ffff{hashes[i + 4 :]}"}
      other["params_hash"] = "00" * 16
    return record._replace(decision=record.decision._replace(**other))

  found = replay.replay(_with_other_log(copy, change)).divergence
  assert found.t == seen[1] and found.leaf == leaf
  assert not leaf or found.num_leaves == 1
  words = "num_updates 99 recorded,", "loss 5.0 recorded,"
  assert leaf or all(x in found.words for x in words)


def test_taken_student_is_that_of_the_log_and_runs_elsewhere(whole, tmp_path):
  run = recorded_run.read(whole)
  hashes = {r.t: r.decision.params_hash for r in run.log if r.kind == "key"}
  key = sorted(hashes)[2]
  path = tmp_path / "s.safetensors"
  taken = export.export(run, key, path)
  found = pretrained.load(path)
  assert found.class_names == ("background", "person")
  named = {n.replace("/", "."): x for n, x in found.params.items()}
  assert state_arrays.hashes(named).digest == hashes[key]
  assert taken.num_params == sum(x.size for x in named.values())

  program = export_lib.load(taken.program)
  samples = recorded_run.open_job(run).stream.read(key)
  frames = np.stack([next(samples).frame for _ in range(3)])
  classes = np.asarray(program(found.params, frames))
  assert classes.shape == (3, 48, 64) and classes.dtype == np.uint8
  job, _, executor = recorded_run.open_again(run)
  start = recorded_run.Start(0, executor.first_state(), False)
  steps = recorded_run.frames(run, job, executor, start, 40)
  by_t = {step.sample.t: step.classes for step in steps}
  # No key frame in between: the same student answered all three.
  assert not any(key < t <= key + 2 for t in hashes)
  np.testing.assert_array_equal(classes, [by_t[key + i] for i in range(3)])
  one = np.asarray(program(found.params, frames[:1]))
  np.testing.assert_array_equal(one[0], classes[0])


def test_taken_student_begins_a_run(whole, tmp_path):
  path = tmp_path / "s.safetensors"
  export.export(recorded_run.read(whole), 39, path)
  small_run.run(tmp_path / "next", init=str(path), system="frozen")
  last = _params(whole)
  for name, x in _params(tmp_path / "next").items():
    np.testing.assert_array_equal(x, last[name], err_msg=name)


def test_late_labels_are_replayed_late(tmp_path):
  small_run.run(tmp_path, async_teacher=True)
  run = recorded_run.read(tmp_path)
  assert any(r.decision.key_t is not None for r in run.log if r.decision)
  found = replay.replay(run)
  assert found.is_equal and found.num_keys > 0 and found.num_judged == 40
  assert replay.replay(run, _steps(tmp_path)[0]).is_equal


def test_run_that_was_stopped_is_replayed_as_far_as_it_came(copy):
  metrics = copy / workdir.METRICS
  lines = metrics.read_text().splitlines(keepends=True)
  metrics.write_text("".join(lines[:22]) + lines[22][:10])
  found = _replay(copy)
  assert found.is_equal and found.end == 22


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda c: c.update(format=2), "format 2"),
    (lambda c: c["flags"].update(a_thresh="high"), "is damaged"),
    (lambda c: c["flags"].update(a_thresh=3.0), "--a_thresh=3.0"),
    (lambda c: c["flags"].pop("stream"), "another run"),
    (lambda c: c["flags"].update(colour="red"), "is damaged"),
    (lambda c: c.pop("class_members"), "is damaged"),
    (lambda c: c["flags"].update(seed=5), "another run: flags"),
    (lambda c: c["stream"].update(version=-1), "another run: stream"),
  ],
)
def test_what_is_not_this_run_is_refused(copy, change, words):
  path = copy / workdir.CONFIG
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))
  with pytest.raises(UserError, match=words):
    recorded_run.read(copy)


def test_what_cannot_be_replayed_is_refused(whole):
  run = recorded_run.read(whole)
  other = dataclasses.replace(run.config, stream="synthetic:sports?seed=9")
  with pytest.raises(UserError, match="have changed since"):
    recorded_run.open_job(run, other)
  live = {**run.description, "stream": {"kind": "live", "address": "x"}}
  with pytest.raises(UserError, match="cannot be replayed"):
    recorded_run.open_job(run._replace(description=live))
  for frames in ((-1, None), (40, None), (5, 4), (0, 40)):
    with pytest.raises(UserError, match="the run has 0 to 39"):
      replay.replay(run, *frames)


def test_export_refuses_what_is_no_program(tmp_path):
  path = tmp_path / "x.jax"
  path.write_bytes(b"no program")
  with pytest.raises(UserError, match="no exported student"):
    export_lib.load(path)
  with pytest.raises(UserError, match="No such file"):
    export_lib.load(tmp_path / "none")

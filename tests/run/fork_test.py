"""Forks: the same where nothing was changed, else runs of their own."""

import shutil

import jax
import numpy as np
import pytest

from ojd.errors import UserError
from ojd.run import build, recorded_run, replay, state_arrays, workdir
from ojd.run import config as config_lib
from ojd.run import fork as fork_lib
from ojd.teachers import ground_truth
from tests.reference import small_run

AT = 14


@pytest.fixture(scope="module")
def parent(small_students, tmp_path_factory):
  path = tmp_path_factory.mktemp("runs") / "parent"
  small_run.run(path)
  return path


@pytest.fixture
def calls(monkeypatch):
  """The frames that a teacher was asked about."""
  asked = []
  call = ground_truth.GroundTruth.__call__
  count = lambda self, sample: asked.append(sample.t) or call(self, sample)
  monkeypatch.setattr(ground_truth.GroundTruth, "__call__", count)
  return asked


def _fork(parent, path, at=AT, stop=None, notes=None, **given):
  branch = fork_lib.open_fork(parent, at)
  given = given | {"workdir": str(path)}
  config = fork_lib.child_config(branch.parent.config, given)
  config_lib.check(config)
  return small_run.play(config, stop, notes, fork=branch).summary


@pytest.mark.parametrize("at", [0, AT, 16, 39])
def test_fork_without_changes_is_its_parent(parent, tmp_path, calls, at):
  summary = _fork(parent, tmp_path / "fork", at)
  rows = small_run.lines(parent, at)
  assert small_run.lines(tmp_path / "fork") == rows
  assert calls == []  # every answer was on record
  assert summary["num_frames"] == 40 - at
  assert summary["num_key_frames"] == sum(row["is_key"] for row in rows)
  assert summary["num_cached_labels"] == summary["num_key_frames"]
  again = replay.replay(recorded_run.read(tmp_path / "fork"))
  assert again.is_equal and again.start.t == at and again.end == 40


def test_teacher_is_asked_only_what_is_not_on_record(parent, tmp_path, calls):
  path = tmp_path / "fork"
  summary = _fork(parent, path, system="fixed:stride=2")
  keys = [row["t"] for row in small_run.lines(path) if row["is_key"]]
  known = {row["t"] for row in small_run.lines(parent) if row["is_key"]}
  assert keys == list(range(AT, 40, 2))
  assert calls == [t for t in keys if t not in known]
  assert summary["num_cached_labels"] == len(set(keys) & known) > 0
  assert replay.replay(recorded_run.read(path)).is_equal
  page = (path / workdir.REPORT / "index.html").read_text()
  mious = [row["eval_miou"] for row in small_run.lines(parent, AT)]
  for words in (
    *(f"A fork at frame {AT}", f"{np.mean(mious):.3f}", "fork of is grey"),
    "<code>--system</code> fixed:stride=2 instead of jit",
  ):
    assert words in page


def test_interrupted_fork_goes_on_as_if_nothing_had_been(parent, tmp_path):
  flags = {"update": "adam", "a_thresh": 0.9, "checkpoint_every": 1}
  whole = _fork(parent, tmp_path / "whole", **flags)
  parts, notes = tmp_path / "parts", []
  _fork(parent, parts, stop=3, **flags)
  _fork(parent, parts, stop=9, **flags)
  last = _fork(parent, parts, notes=notes, **flags)
  assert any("resuming at frame" in note for note in notes)
  assert small_run.lines(parts) == small_run.lines(tmp_path / "whole")
  assert small_run.counts(last) == small_run.counts(whole)
  assert last["resumed"] == 2
  assert _fork(parent, parts, **flags)["finished"]


def test_fork_goes_beyond_its_parent_and_forks_again(parent, tmp_path, calls):
  short = tmp_path / "short"
  small_run.run(short, num_frames=20)
  calls.clear()
  longer = tmp_path / "longer"
  summary = _fork(short, longer, at=20, num_frames=40)
  assert small_run.lines(longer) == small_run.lines(parent, 20)
  assert summary["num_cached_labels"] == 0 and calls
  again = tmp_path / "again"
  _fork(longer, again, at=30)
  assert small_run.lines(again) == small_run.lines(parent, 30)
  assert recorded_run.read(again).num_before == 30


def test_parts_are_carried_over_where_they_fit(parent):
  run = recorded_run.read(parent)

  def carry(**given):
    config = fork_lib.child_config(run.config, given)
    job = recorded_run.open_job(run, config)
    old = recorded_run.open_job(run)
    state = old.system.init(jax.random.key(7), np.zeros((48, 64, 3), np.uint8))
    state = jax.tree.map(lambda x: x + 1, state)
    new, renewed = fork_lib.carry_over(state, run.config, job)
    return state_arrays.to_numpy(state), state_arrays.to_numpy(new), renewed

  old, new, renewed = carry(a_thresh=0.5)
  assert renewed == []
  np.testing.assert_equal(new, old)
  old, new, renewed = carry(update="adam")
  assert renewed == ["opt_state"] and new["t"] == old["t"]
  kernel = "params.logits.kernel"
  np.testing.assert_array_equal(new[kernel], old[kernel])
  assert new["opt_state.0.count"] == 0
  old, new, renewed = carry(delta_min=2)
  assert renewed == ["schedule"] and new["schedule.stride"] == 2
  assert old["schedule.stride"] == 5


def test_other_gradient_step_has_its_own_rate(parent):
  config = recorded_run.read(parent).config
  assert config.learning_rate == 0.03
  for given, expected in (
    ({"update": "adam"}, None),
    ({"update": "adam", "learning_rate": 0.2}, 0.2),
    ({"u_max": 1}, 0.03),
  ):
    assert fork_lib.child_config(config, given).learning_rate == expected


def test_what_the_labels_are_of_cannot_change(parent):
  config = recorded_run.read(parent).config
  others = {"stream": "synthetic:park", "classes": "ball", "seed": 1}
  others |= {"teacher": "mask_rcnn", "init": "bundled", "height": 64}
  others |= {"model": "mobilenet_v2"}
  for flag, value in others.items():
    with pytest.raises(UserError, match=f"--{flag}: a fork keeps its parent's"):
      fork_lib.child_config(config, {flag: value})


def test_folders_are_kept_apart(parent, tmp_path):
  path = tmp_path / "fork"
  _fork(parent, path, stop=2)
  other = shutil.copytree(parent, tmp_path / "other")
  for of, into, at, words in (
    (parent, path, AT + 1, "from_frame"),
    (other, path, AT, "parent"),
    (parent, other, AT, "one is a fork, one is not"),
    (parent, tmp_path / "new", 41, "the run has 0 to 39"),
  ):
    with pytest.raises(UserError, match=words):
      _fork(of, into, at)


def test_student_that_does_not_fit_is_refused(parent):
  run = recorded_run.read(parent)
  job = recorded_run.open_job(run)
  groups = job.groups._replace(names=("background", "a", "b"))
  other = build.make_student(run.config, groups)
  wide = job._replace(
    system=build.make_system(run.config, other, job.stream.spec)
  )
  state = job.system.init(jax.random.key(0), np.zeros((48, 64, 3), np.uint8))
  with pytest.raises(UserError, match="params.logits"):
    fork_lib.carry_over(state, run.config, wide)

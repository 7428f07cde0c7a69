"""Sweeps: every trial is what a run alone would be."""

import csv
import inspect
import itertools

import numpy as np
import pytest
from PIL import Image

from ojd import systems
from ojd.errors import UserError
from ojd.run import recorded_run, sweep, sweep_results
from ojd.teachers import base as teachers
from tests.reference import scenes, small_run


@pytest.fixture(scope="module")
def parent(small_students, tmp_path_factory):
  path = tmp_path_factory.mktemp("runs") / "parent"
  small_run.run(path, num_frames=20)
  return path


def test_trials_are_runs_of_their_own(parent, tmp_path):
  """To the rounding of sums that are made in another order."""
  grid = sweep.parse("learning_rate=0.003,0.03;a_thresh=0.2,0.8;seed=2,3")
  trials = sweep.sweep(recorded_run.read(parent), grid)
  assert len(trials) == 8
  for number, i in enumerate((0, 3, 6)):
    path = tmp_path / str(number)
    summary = small_run.run(path, num_frames=20, **trials[i].values).summary
    assert trials[i].num_frames == 20
    assert trials[i].num_keys == summary["num_key_frames"]
    assert trials[i].num_updates == summary["num_updates"]
    assert trials[i].miou == pytest.approx(summary["miou"]["mean"], abs=0.03)


def test_many_combinations_go_in_turns(parent, monkeypatch):
  run = recorded_run.read(parent)
  grid = sweep.parse("a_thresh=0.1,0.5,0.9")
  at_once = sweep.sweep(run, grid, to_frame=9)
  monkeypatch.setattr(sweep, "_MAX_TRIALS", 2)
  done = []
  note = lambda *counts: done.append(counts)
  in_turns = sweep.sweep(run, grid, to_frame=9, progress_fn=note)
  assert [trial.values for trial in in_turns] == [x.values for x in at_once]
  for a, b in zip(at_once, in_turns, strict=True):
    assert a.num_keys == b.num_keys and a.num_frames == b.num_frames == 10
    assert a.miou == pytest.approx(b.miou, abs=0.03)
  assert done[-1] == (20, 20) and done == sorted(done)


def test_sweep_from_a_frame_begins_with_the_student_of_then(parent):
  run = recorded_run.read(parent)
  (trial,) = sweep.sweep(run, {"u_max": [3]}, from_frame=8)
  rows = [row for row in run.rows if row["t"] >= 8]
  assert trial.num_frames == 12
  assert trial.num_keys == sum(row["is_key"] for row in rows)
  assert trial.num_updates == sum(row["num_updates"] for row in rows)


def test_recorded_labels_need_no_teacher(tmp_path, monkeypatch):
  """A stream without truth that was judged on every frame."""
  frames, run = tmp_path / "stream" / "frames", tmp_path / "run"
  frames.mkdir(parents=True)
  for t, frame in enumerate(scenes.coloured_squares(20, 32, 40)[0]):
    Image.fromarray(frame).save(frames / f"{t:03d}.png")
  flags = {"stream": f"folder:{frames.parent}", "eval_every": 1}
  flags |= {"teacher": "tests.reference.odd_teachers:Colours"}
  flags |= {"classes": "red;green", "height": None, "width": None}
  summary = small_run.run(run, **flags).summary
  assert summary["eval_frames"] == 20
  monkeypatch.delattr(teachers, "make_teacher")
  notes, made = [], recorded_run.read(run)
  (trial,) = sweep.sweep(made, {"u_max": [3]}, note_fn=notes.append)
  assert notes == []
  assert trial.num_updates == summary["num_updates"] > 0


def test_table_and_picture(tmp_path):
  pairs = itertools.product((0.1, 0.3), (0.2, 0.4, 0.6))
  of = lambda r, a: {"learning_rate": r, "a_thresh": a}
  trials = [sweep.Trial(of(r, a), r * a, 20, 5, 7) for r, a in pairs]
  own = {"learning_rate": 0.3, "a_thresh": 0.4}
  sweep_results.write(trials, own, "a title", tmp_path / "out")
  with (tmp_path / "out" / sweep_results.TABLE).open() as file:
    rows = list(csv.DictReader(file))
  mious = sorted((trial.miou for trial in trials), reverse=True)
  assert [float(row["miou"]) for row in rows] == pytest.approx(mious)
  assert rows[0]["learning_rate"] == "0.3" and rows[0]["a_thresh"] == "0.6"
  # 300 N / (7 (N - n) + 300 n + 30 u)
  expected = 300 * 20 / (7 * 15 + 300 * 5 + 30 * 7)
  assert float(rows[0]["speedup_paper_model"]) == round(expected, 3)
  picture = np.asarray(Image.open(tmp_path / "out" / sweep_results.HEAT_MAP))
  assert picture.std() > 10
  assert len(sweep_results.table(trials).splitlines()) == 7


def test_maps_of_any_number_of_constants():
  for names, num_maps in (("a", 1), ("ab", 1), ("abc", 2)):
    of = lambda x, names=names: dict.fromkeys(names, x)
    trials = [sweep.Trial(of(x), x, 20, 5, 7) for x in (0.5, 1.0)]
    fig = sweep_results.draw(trials, {"a": 1.0}, "x")
    assert len(fig.axes) == 2 * num_maps
    # Every trial has its cell in both kinds of map.
    assert sum(len(ax.texts) for ax in fig.axes) == 4


def test_what_is_no_sweep_is_refused():
  for text, words in {
    **dict.fromkeys(("", "a_thresh", "colour=red"), "not NAME=VALUE"),
    "a_thresh=high": "are not values of a_thresh",
    "a_thresh=0.5,": "are not values of a_thresh",
    "u_max=1.5": "are not values of u_max",
    "a_thresh=0.5;a_thresh=0.6": "given twice",
    "a_thresh=0.5,0.50": "same value twice",
    "seed=" + ",".join(map(str, range(1025))): "more than 1024",
  }.items():
    with pytest.raises(UserError, match=words):
      sweep.parse(text)


def test_what_no_run_could_have_is_refused(parent):
  run = recorded_run.read(parent)
  for grid, frames, words in (
    ({"a_thresh": [1.5]}, {}, "a_thresh=1.5"),
    ({"learning_rate": [-1.0]}, {}, "learning_rate=-1.0"),
    ({"u_min": [9]}, {}, "u_min=9"),
    ({"seed": [1, 2]}, {"from_frame": 8}, "only at the start of a run"),
    ({"u_max": [1]}, {"to_frame": 20}, "the run has 0 to 19"),
  ):
    with pytest.raises(UserError, match=words):
      sweep.sweep(run, grid, **frames)


def test_constants_may_be_traced():
  """Each name is one that the system's factory takes as an array."""
  made = (systems.jit, systems.fixed)
  known = {name for x in made for name in inspect.signature(x).parameters}
  assert set(sweep.NAMES) - {"seed", "learning_rate"} <= known

"""Comparisons of small students, in worker processes as a person's are."""

import dataclasses
import functools
import itertools
import json

import numpy as np
import pytest
from PIL import Image

from ojd.compare import (
  compare,
  measures,
  numbers,
  pool,
  results,
  spec,
  worker,
)
from ojd.compare import folder as folders
from ojd.errors import UserError
from ojd.streams import base
from tests.reference import odd_teachers, small_run, small_workers

CONFIG = dataclasses.replace(small_run.CONFIG, num_frames=12, seed=0)
STREAM = "synthetic:sports?num_frames=40"


@pytest.fixture(autouse=True)
def _small_workers(monkeypatch):
  """Processes that the tests start have small students."""
  module = small_workers.__name__
  small = functools.partial(pool.Pool, module=module)
  monkeypatch.setattr(compare, "Pool", small)


def _request(path, systems="jit,frozen", streams=STREAM, seeds=(0,), **more):
  flags = {name: more.pop(name) for name in list(more) if hasattr(CONFIG, name)}
  return compare.Request(
    config=dataclasses.replace(CONFIG, **flags),
    streams=tuple(spec.parse_streams([streams])),
    systems=tuple(spec.parse_systems(systems)),
    seeds=tuple(seeds),
    output=path,
    **more,
  )


def _run(request, **people):
  return compare.run(request, lambda config: "a command", **people)


def test_cells_are_ordinary_runs_and_are_kept(tmp_path, small_students):
  output, news = tmp_path / "out", []
  request = _request(output, num_jobs=2)
  cells = _run(request, progress_fn=news.append)
  jit, frozen = cells
  for cell in cells:
    alone = tmp_path / cell.system.name
    flags = dict(num_frames=12, seed=0, system=cell.system.name)
    summary = small_run.run(alone, **flags).summary
    assert small_run.lines(output / cell.folder) == small_run.lines(alone)
    assert cell.numbers.miou == summary["miou"]["mean"]
    assert cell.numbers.num_key_frames == summary["num_key_frames"]
    assert cell.numbers.speedup_paper_model == summary["speedup_paper_model"]
  assert jit.numbers.num_updates > 0 == frozen.numbers.num_updates
  assert news[-1][:4] == (24, 24, 2, 2)
  assert {x.news for x in news if x.news} == {
    f"sports, {name}, seed 0: done" for name in ("jit", "frozen")
  }
  # Again, and with one more: what is there is left as it is.
  times = {c.folder: _written(output / c.folder) for c in cells}
  assert _run(request) == cells
  more = _run(_request(output, "jit,frozen,fixed:stride=3"))
  assert more[:2] == cells and more[2].numbers.num_key_frames == 4
  assert {c.folder: _written(output / c.folder) for c in cells} == times


def _written(path):
  return (path / "summary.json").stat().st_mtime_ns


def test_one_cell_dies_and_the_others_live(tmp_path):
  """The teacher ends the process that asks it; who never asks goes on."""
  folder = tmp_path / "frames"
  folder.mkdir()
  for t in range(3):
    frame = odd_teachers.frame_that_says(odd_teachers.DIE, 32, 48)
    Image.fromarray(frame).save(folder / f"{t}.png")
  request = _request(
    *(tmp_path / "out", "frozen,jit,fixed:u_max=0", f"images:{folder}"),
    teacher="tests.reference.odd_teachers:Obedient",
    **{"classes": "red", "eval_every": 0, "height": None, "width": None},
  )
  cells = _run(request)
  assert [cell.numbers is None for cell in cells] == [False, True, True]
  assert all("its process ended with code" in c.problem for c in cells[1:])
  assert cells[0].numbers.miou is None
  words = results.write(request, cells, "the command")
  lines = [" ".join(line.split()) for line in words.splitlines()]
  assert "frames - (42.9x, 0.0%) failed failed" in lines
  assert any(line.startswith("frames, jit, seed 0: its") for line in lines)
  for name in ("table.txt", "table.tex", "cells.csv", "table.csv"):
    assert (tmp_path / "out" / name).stat().st_size > 0
  assert "failed" in (tmp_path / "out" / "index.html").read_text()


def test_stopped_it_goes_on_where_it_was(tmp_path):
  request, seen = _request(tmp_path, seeds=(0, 1)), []
  stopped = _run(
    request,
    progress_fn=lambda progress: seen.append(progress.num_cells),
    should_stop=lambda: bool(seen) and seen[-1] >= 1,
  )
  assert stopped is None
  summaries = (tmp_path / "cells").glob("*/summary.json")
  done = [p.parent for p in summaries if json.loads(p.read_text())["finished"]]
  assert 1 <= len(done) < 4
  times = [_written(path) for path in done]
  cells = _run(request)
  assert len(cells) == 4 and all(cell.numbers for cell in cells)
  assert [_written(path) for path in done] == times
  # The two seeds are two students.
  first, second = (c.numbers.miou for c in cells if c.system.name == "jit")
  assert first != second


def test_changed_bytes_by_hand():
  old = {"a": np.float32([0.0, 1.0, np.nan, 4.0]), "b": np.float32([[5.0]])}
  new = {"a": np.float32([-0.0, 1.0, np.nan, 4.5]), "b": np.float32([[5.0]])}
  assert numbers.changed_bytes(old, old) == 0
  assert numbers.changed_bytes(old, new) == 8


def test_measures_come_with_the_cell_and_can_come_later(
  tmp_path, small_students
):
  updates = tuple(spec.of_updates(["sgd"]))
  request = _request(tmp_path, save_masks="video", has_davis=True)
  request = request._replace(systems=updates, updates=updates)
  (before,) = _run(request)
  assert before.numbers.consistency is None
  (cell,) = _run(request._replace(has_temporal=True))
  found = cell.numbers
  assert 0 <= found.region <= 1 and 0 <= found.boundary <= 1
  # 3x3x3x8 + 2x8 + 8 + 1 numbers for a background and a person, all of them
  # touched by every gradient step.
  total = 4 * (3 * 3 * 3 * 8 + 2 * 8 + 2 * 8 + 2)
  assert 0.8 * total < found.bytes_per_key <= total and found.ms_update > 0
  assert 0 < found.consistency < found.truth_consistency <= 1
  assert 0 <= found.truth_flicker < found.flicker < 1
  assert found.miou == before.numbers.miou
  path = tmp_path / cell.folder
  assert numbers.are_measured(path, frozenset({numbers.TEMPORAL}))
  # They are not of those who did not ask for them.
  assert numbers.read(path).bytes_per_key is None
  # The truth's are those of the stream, whatever was answered.
  stream = base.open_stream(STREAM, CONFIG.height, CONFIG.width)
  clip = [
    measures.Answer(sample.t, sample.frame, sample.truth, None)
    for sample in itertools.islice(stream.read(), CONFIG.num_frames)
  ]
  expected = measures.steadiness_of(clip, 2)
  assert expected[:2] == (found.truth_consistency, found.truth_flicker)


@pytest.mark.parametrize(
  "change,words",
  (
    ({"systems": "jit,jit:u_max=3"}, "'jit u_max=3' is the same as 'jit'"),
    ({"systems": "jit:a_thresh=7"}, "jit a_thresh=7: --a_thresh=7.0"),
    ({"systems": "jit:nix"}, "--system=jit:nix: jit has no preset"),
    ({"systems": "jit:update=nix"}, "--update=nix: unknown; known are sgd"),
    ({"num_jobs": 0}, "--jobs=0: from 1"),
    ({"seeds": range(6000)}, "12000 runs"),
    ({"seeds": (0, 2**31)}, "--seed="),
    # What a stream lacks is said before any run, too.
    ({"classes": "zebra"}, "sports: --classes: the teacher knows no 'zebra'"),
    ({"start_frame": 50}, "sports: --start_frame=50"),
    ({"streams": f"{STREAM},folder:/nowhere"}, "nowhere: --stream"),
    (
      {
        **{"has_davis": True, "classes": "person;car"},
        "streams": "synthetic:street",
      },
      "street: --davis_measures are of a stream with labels of one class; "
      "here are person, car",
    ),
  ),
)
def test_wrong_requests_are_refused_before_anything(tmp_path, change, words):
  output = tmp_path / "out"
  with pytest.raises(UserError, match=words):
    _run(_request(output, **change))
  assert not list(output.glob("[!.]*"))  # but a lock


def test_folders_of_other_things_are_refused(tmp_path):
  request = _request(tmp_path, "frozen")
  (tmp_path / "letter.txt").write_text("dear")
  with pytest.raises(UserError, match="not of a comparison"):
    _run(request)
  with pytest.raises(UserError, match="is a file"):
    _run(request._replace(output=tmp_path / "letter.txt"))
  (tmp_path / folders.SETTINGS).write_text("{")
  with pytest.raises(UserError, match="cannot be read"):
    _run(request)
  about = {"height": 96, "a_thresh": 0.7, "davis_measures": False}
  content = {"format": 1, "settings": folders.settings(CONFIG) | about}
  (tmp_path / folders.SETTINGS).write_text(json.dumps(content))
  words = r"other --a_thresh \(0.7, now None\); --height \(96, now 48\); name"
  with pytest.raises(UserError, match=words):
    _run(request)


def test_folders_have_names_of_their_own():
  streams = spec.parse_streams(["synthetic:park,synthetic:park?seed=1"])
  systems = spec.parse_systems("jit,jit:u_max=3,jit:u_max=3:a_thresh=0.1")
  cells = itertools.product(streams, systems, (0, 1))
  found = {folders.cell(*cell) for cell in cells}
  assert len(found) == 12
  # The order of options is of no meaning, nor is what the stream is called.
  (turned,) = spec.parse_systems("jit:a_thresh=0.1:u_max=3")
  renamed = streams[0]._replace(name="x", category="y")
  assert folders.cell(renamed, turned, 0) in found
  long = spec.StreamEntry("folder:/" + "x" * 400, "x")
  assert len(folders.cell(long, systems[0], 0)) < 150


def test_a_worker_says_what_went_wrong(tmp_path, monkeypatch, small_students):
  config = dataclasses.replace(CONFIG, workdir=str(tmp_path / "x"))
  task = pool.Run(config, "a command", frozenset())
  wrong = task._replace(config=dataclasses.replace(config, stream="folder:/x"))
  assert isinstance(worker.answer(wrong), pool.Refused)
  monkeypatch.setattr(worker.runner, "run", lambda *args, **more: 1 / 0)
  words = "ZeroDivisionError: division by zero"
  assert worker.answer(task) == pool.Failed(words)

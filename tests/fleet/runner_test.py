"""A fleet's streams are runs as any other, and one that fails fails alone."""

import contextlib
import dataclasses
import json
import resource
import shutil

import numpy as np
import pytest

from ojd.errors import UserError
from ojd.fleet import (
  folder,
  handle,
  listing,
  placement,
  report,
  runner,
  warm_start,
)
from ojd.fleet.handle import Paced
from ojd.fleet.teachers import Teachers
from ojd.models import pretrained
from ojd.run import config as config_lib
from ojd.run import workdir
from tests.reference import scenes, small_run

pytestmark = pytest.mark.usefixtures("small_students")
SPORTS, PARK = "synthetic:sports?num_frames=40", "synthetic:park?num_frames=30"
MISSING = "no/such/file.mp4"
CONFIG = dataclasses.replace(
  small_run.CONFIG, stream="", teacher="mask_rcnn_tiny", num_frames=40
)


def _run(path, uris, batch=1, progress_fn=lambda p: None, **wanted):
  flags = wanted.pop("flags", {})
  config = dataclasses.replace(CONFIG, workdir=str(path), **flags)
  config = config_lib.without_unused(config, kept=flags.keys())
  entries = [listing.Entry(name, uri) for name, uri in uris.items()]
  stop = wanted.pop("should_stop", lambda: False)
  with contextlib.closing(Teachers(batch)) as teachers:
    return runner.run(
      runner.Request(path, config, entries, **wanted),
      teachers,
      lambda config: "a test",
      progress_fn=progress_fn,
      should_stop=stop,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory, small_students):
  """Two streams, each run by itself."""
  path = tmp_path_factory.mktemp("alone")
  for name, uri in (("sports", SPORTS), ("park", PARK)):
    flags = {"stream": uri, "teacher": "mask_rcnn_tiny"}
    small_run.run(path / name, num_frames=40, **flags)
  return path


@pytest.fixture(scope="module")
def site(tmp_path_factory, small_students):
  """The folder of a fleet of the same two, of a third and of a dead one."""
  path, news = tmp_path_factory.mktemp("site"), []
  found = _run(
    path,
    {
      "sports": SPORTS,
      "gone": MISSING,
      "park": PARK,
      "again": f"{SPORTS}&seed=3",
    },
    student_store=path / folder.STUDENTS,
    progress_fn=lambda progress: news.append(progress.news),
  )
  return path, found, [words for words in news if words]


@pytest.mark.parametrize("name", ["sports", "park"])
def test_a_stream_goes_as_it_goes_alone(site, alone, name):
  path, *_ = site
  there = path / folder.STREAMS / name
  assert small_run.lines(there) == small_run.lines(alone / name)
  for key in ("miou", "num_updates", "num_key_frames", "finished", "deferred"):
    read = workdir.read_summary
    assert read(there)[key] == read(alone / name)[key]


def test_a_dead_stream_is_told_of_and_the_others_go_on(site):
  path, found, news = site
  assert found["states"] == {"done": 3, "stopped": 0, "dead": 1}
  assert not found["finished"]
  gone = found["streams"]["gone"]
  assert gone == {"state": "dead", "problem": gone["problem"]}
  assert MISSING in gone["problem"]
  assert f"gone: {gone['problem']}" in news
  assert any(words.startswith("sports: done, 40 frames") for words in news)
  last = found["last_session"]
  assert last["num_frames"] == found["num_frames"] == 110
  # The streams have labels of their own: only key frames were asked about.
  assert last["teachers"]["num_answers"] == found["num_key_frames"]
  page = report.write(path).read_text()
  assert MISSING in page and "streams/sports/report/index.html" in page


def test_the_same_command_says_what_there_is(site):
  path, found, _ = site
  uris = {"sports": SPORTS, "park": PARK}
  again = _run(path, uris)
  assert again["finished"] and again["states"]["done"] == 2
  assert again["last_session"] == found["last_session"]
  with pytest.raises(UserError, match=r"other --u_max \(3, now 2\)"):
    _run(path, uris, flags={"u_max": 2})
  with pytest.raises(UserError, match="not of a fleet"):
    _run(path / folder.STREAMS, uris)


def test_a_newcomer_begins_with_the_best_student(site, tmp_path):
  path, *_ = site
  store = tmp_path / "store"
  store.mkdir()
  shutil.copy(path / folder.STUDENTS / "again.safetensors", store)
  other = pretrained.load(path / folder.STUDENTS / "park.safetensors")
  blank = {k: np.zeros_like(v) for k, v in other.params.items()}
  pretrained.save(store / "blank.safetensors", other._replace(params=blank))
  (store / "broken.safetensors").write_bytes(b"no such thing")
  news = []
  found = _run(
    tmp_path / "site",
    {"new": SPORTS + "&seed=5"},
    student_store=store,
    max_students=3,
    progress_fn=lambda progress: news.append(progress.news),
  )
  assert found["streams"]["new"]["started_from"] == "again"
  chosen = [words for words in news if "begins with the student of" in words]
  assert len(chosen) == 1 and "of again: mIoU" in chosen[0]
  assert sum("broken.safetensors is passed over" in x for x in news) == 1
  start = folder.start_of(tmp_path / "site", "new")
  about = json.loads(start.with_suffix(".json").read_text())
  assert about["mious"]["again"] == max(about["mious"].values())
  assert about["mious"][warm_start.OWN] < about["mious"]["again"]
  first = small_run.lines(tmp_path / "site" / folder.STREAMS / "new")[0]
  # What was tried is what it began with.
  assert first["miou_before"] == pytest.approx(about["mious"]["again"])
  # It saved its own; the oldest had to go.
  left = {path.stem for path in warm_start.saved_students(store)}
  assert "new" in left and len(left) == 3


def test_a_fleet_that_is_stopped_goes_on(alone, tmp_path):
  uris = {"sports": SPORTS, "park": PARK}
  seen = []
  found = _run(
    *(tmp_path, uris),
    should_stop=lambda: any(p and p.num_frames > 12 for p in seen),
    progress_fn=lambda p: seen.extend(one.progress for one in p.handles),
  )
  assert not found["finished"], "it was not stopped"
  assert found["states"]["stopped"] >= 1
  assert _run(tmp_path, uris)["finished"]
  for name in uris:
    assert small_run.lines(tmp_path / folder.STREAMS / name) == small_run.lines(
      alone / name
    )


def test_scarce_calls_are_shared_and_the_rest_deferred(tmp_path):
  uris = {f"s{i}": f"{SPORTS}&seed={i}" for i in range(3)}
  # 40 frames at 25 a second: 1.6 s, so two calls and the first one or two.
  found = _run(tmp_path / "a", uris, teacher_rate=1.0)
  again = _run(tmp_path / "b", uris, teacher_rate=1.0, batch=3)
  last = found["last_session"]
  assert last["granted"] == found["num_key_frames"] == 3
  assert found["deferred"] == last["deferred"] == again["deferred"] > 20
  assert [x["num_key_frames"] for x in found["streams"].values()] == [1, 1, 1]
  enough = _run(tmp_path / "c", uris, teacher_rate=1000.0)
  free = _run(tmp_path / "d", uris)
  assert enough["deferred"] == 0
  assert free["num_key_frames"] == enough["num_key_frames"]
  for name in uris:
    a, b, c, d = (
      small_run.lines(tmp_path / x / folder.STREAMS / name) for x in "abcd"
    )
    assert a == b and c == d
    # A key frame that was deferred is asked for again on the next one.
    assert sum(line["is_key"] for line in a) == 1


def test_more_streams_than_memory_holds(tmp_path, monkeypatch):
  uris = {f"s{i}": f"{SPORTS}&seed={i}" for i in range(4)}
  job = handle.make(tmp_path, CONFIG, listing.Entry("a", SPORTS))
  handle.open_job(job, Teachers(1), is_paced=False, is_rate_limited=False)
  each = sum(placement.bytes_of(job.job))
  monkeypatch.setattr(placement, "free_on_host", lambda: int(2.5 * each / 0.9))
  with pytest.raises(UserError, match="4 streams take .* GB are free: 2 fit"):
    _run(tmp_path, uris)
  assert not (tmp_path / folder.STREAMS / "s0").exists()


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ({"link": "ideal"}, "--link"),
    ({"teacher_process": True}, "--teacher_process"),
    ({"system": "offline_oracle"}, "one by one"),
    ({"a_thresh": 2.0}, "--a_thresh=2.0"),
  ],
)
def test_what_a_fleet_cannot_do_is_refused(tmp_path, flags, words):
  with pytest.raises(UserError, match=words):
    _run(tmp_path, {"sports": SPORTS}, flags=flags)
  assert not any(tmp_path.iterdir())


def test_more_files_are_allowed_where_they_are_needed(monkeypatch):
  limits, asked = [(1024, 4096)], []
  monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[0])
  monkeypatch.setattr(resource, "setrlimit", lambda kind, to: asked.append(to))
  placement.allow_files(10)
  assert not asked
  placement.allow_files(100)
  assert asked == [(256 + 12 * 100, 4096)]
  with pytest.raises(UserError, match="4096 are allowed here: 320 streams"):
    placement.allow_files(400)
  limits[0] = (1024, resource.RLIM_INFINITY)
  placement.allow_files(400)
  assert asked[-1] == (256 + 12 * 400, resource.RLIM_INFINITY)


def test_a_folder_knows_its_streams_and_hides_their_secrets(tmp_path):
  config = small_run.CONFIG
  assert folder.known_names(tmp_path / "new", config) == {}
  one = listing.Entry("gate", "rtsp://me:secret@host/1")
  folder.create(tmp_path, config, [one], "a command")
  folder.create(tmp_path, config, [listing.Entry("yard", "y.mp4")], "another")
  words = (tmp_path / folder.FLEET).read_text()
  assert "secret" not in words
  known = folder.known_names(tmp_path, config)
  assert known["y.mp4"] == "yard" and len(known) == 2
  (tmp_path / folder.FLEET).write_text(json.dumps({"format": 2}))
  with pytest.raises(UserError, match="fleet.json cannot be read"):
    folder.known_names(tmp_path, config)
  with pytest.raises(UserError, match="is a file"):
    folder.known_names(tmp_path / folder.FLEET, config)


def test_frames_come_no_sooner_than_from_a_camera():
  now, slept, stream = [100.0], [], scenes.Stream(num_frames=6)

  def sleep(seconds):
    slept.append(round(seconds, 6))
    now[0] += seconds

  paced = Paced(stream, lambda: now[0], sleep)
  assert paced.spec is stream.spec
  seen = []
  for sample in paced.read(2):
    seen.append((sample.t, round(now[0] - 100.0, 6)))
    now[0] += 0.1 if sample.t == 3 else 0.01  # once it takes too long
  # 25 frames a second; what is late is not waited for, and nothing is dropped.
  assert seen == [(2, 0.0), (3, 0.04), (4, 0.14), (5, 0.15)]
  assert slept == [0.0, 0.03, 0.0, 0.0]

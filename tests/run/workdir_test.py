"""Whose a folder is; nothing in it is lost."""

import dataclasses
import json
import os

import pytest

from ojd import labels
from ojd.errors import UserError
from ojd.run import workdir
from ojd.run.config import RunConfig
from ojd.run.workdir import Status

CONFIG = RunConfig(workdir="x")
STREAM = {"kind": "synthetic", "scene": "street"}
SUMMARY = {"finished": True, "miou": {}, "num_frames": 1, "fps": 1.0}
SUMMARY |= {"num_updates": 0}


def _description(config=CONFIG, stream=STREAM):
  groups = labels.parse_groups("", ("background", "person"))
  return workdir.describe_run(config, stream, groups, "the command")


def _create(path, description=None):
  with workdir.claim(path):
    workdir.create(path, description or _description())


def _status(path, **other):
  return workdir.inspect(path, _description(**other))


def test_status_of_a_workdir(tmp_path):
  path = tmp_path / "deep" / "run"
  assert _status(path) is Status.NEW
  _create(path)
  assert _status(path) is Status.UNFINISHED
  workdir.write_json(path / workdir.SUMMARY, SUMMARY | {"finished": False})
  assert _status(path) is Status.UNFINISHED
  workdir.write_json(path / workdir.SUMMARY, SUMMARY)
  assert _status(path) is Status.FINISHED
  for damaged in ("[]", '{"finished": true}', "{", "[" * 9999):
    (path / workdir.SUMMARY).write_text(damaged)
    assert _status(path) is Status.UNFINISHED


def test_one_process_at_a_time(tmp_path):
  again = workdir.claim(tmp_path / "run")
  refused = pytest.raises(UserError, match="another process")
  with workdir.claim(tmp_path / "run"), refused:
    again.__enter__()
  with workdir.claim(tmp_path / "run"):
    pass


def test_start_that_failed_leaves_the_folder_usable(tmp_path, monkeypatch):
  def full(self, text):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(type(tmp_path), "write_text", full)
    with pytest.raises(UserError, match="No space left"):
      _create(tmp_path / "run")
  (tmp_path / "run" / "config.json.part").write_text("")  # killed right there
  assert _status(tmp_path / "run") is Status.NEW


def test_paths_that_cannot_be_are_refused(tmp_path):
  for text in ("~nobody-of-that-name/x", "x" * 300):
    with pytest.raises(UserError, match="--workdir"):
      _status(workdir.expand(text))
  path = tmp_path / "file"
  path.write_text("")
  with pytest.raises(UserError, match="is a file"):
    _status(path)
  with pytest.raises(UserError, match="cannot be written"):
    _create(path / "below")


def test_other_flags_or_frames_are_named(tmp_path):
  _create(tmp_path)
  other = dataclasses.replace(CONFIG, a_thresh=0.9, seed=3, workdir="y")
  with pytest.raises(UserError) as error:
    _status(tmp_path, config=other)
  config = json.loads((tmp_path / workdir.CONFIG).read_text())
  assert config["flags"]["a_thresh"] is None  # the default of the method
  assert (config["stream"], config["command"]) == (STREAM, "the command")
  assert config["versions"]["jax"] and config["devices"]
  message = str(error.value)
  assert "--a_thresh (default, now 0.9)" in message
  assert "--seed (0, now 3)" in message and "--workdir (" not in message
  with pytest.raises(UserError, match="--stream"):
    _status(tmp_path, stream={"kind": "folder"})


def test_folder_of_something_else_is_refused_and_left_alone(tmp_path):
  (tmp_path / "thesis.tex").write_text("dear")
  with pytest.raises(UserError, match="not of a run"):
    _status(tmp_path)
  assert os.listdir(tmp_path) == ["thesis.tex"]


def test_broken_config_or_another_format_is_refused(tmp_path):
  _create(tmp_path)
  path = tmp_path / workdir.CONFIG
  content = json.loads(path.read_text())
  broken = ("", "{", "[]", '{"flags": 3}')
  cases = [(text, "cannot be read") for text in broken]
  for number in (1, 99):
    other = json.dumps(content | {"format": number})
    cases.append((other, f"format {number}"))
  for text, words in cases:
    path.write_text(text)
    with pytest.raises(UserError, match=words):
      _status(tmp_path)


def test_unfinished_results_are_set_aside_not_lost(tmp_path):
  _create(tmp_path)
  for attempt in (1, 2):
    (tmp_path / workdir.METRICS).write_text(f"attempt {attempt}")
    (tmp_path / workdir.MASKS).mkdir()
    assert workdir.set_aside(tmp_path) == attempt
  assert workdir.num_interrupted(tmp_path) == 2
  for attempt in (1, 2):
    kept = tmp_path / "interrupted" / str(attempt) / workdir.METRICS
    assert kept.read_text() == f"attempt {attempt}"
  assert not (tmp_path / workdir.METRICS).exists()
  assert _status(tmp_path) is Status.UNFINISHED


def test_default_that_has_changed_is_refused(tmp_path):
  options = {"system": {"a_thresh": 0.8, "u_max": 8}, "update": {"rate": 0.1}}
  old = _description() | {"options": options}
  _create(tmp_path, old)
  assert workdir.inspect(tmp_path, old) is Status.UNFINISHED
  new = _description() | {"options": {"system": {"a_thresh": 0.9, "u_max": 8}}}
  words = r"other default of system a_thresh \(0.8, now 0.9\); name a new"
  with pytest.raises(UserError, match=words):
    workdir.inspect(tmp_path, new)

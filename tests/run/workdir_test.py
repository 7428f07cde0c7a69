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


SUMMARY = {
  "finished": True,
  "miou": {},
  "num_frames": 1,
  "fps": 1.0,
  "num_updates": 0,
}


def _create(path, config=CONFIG):
  with workdir.claim(path):
    workdir.create(path, _description(config))


def _description(config=CONFIG, stream=STREAM):
  groups = labels.parse_groups("", ("background", "person"))
  return workdir.describe_run(config, stream, groups, "the command")


def test_status_of_a_workdir(tmp_path):
  path = tmp_path / "deep" / "run"
  assert workdir.inspect(path, _description()) is Status.NEW
  _create(path)
  assert workdir.inspect(path, _description()) is Status.UNFINISHED
  workdir.write_json(path / workdir.SUMMARY, SUMMARY | {"finished": False})
  assert workdir.inspect(path, _description()) is Status.UNFINISHED
  workdir.write_json(path / workdir.SUMMARY, SUMMARY)
  assert workdir.inspect(path, _description()) is Status.FINISHED


@pytest.mark.parametrize(
  "content", ["[]", '{"finished": true}', "{", "[" * 9999]
)
def test_damaged_summary_is_that_of_an_unfinished_run(tmp_path, content):
  _create(tmp_path)
  (tmp_path / workdir.SUMMARY).write_text(content)
  assert workdir.inspect(tmp_path, _description()) is Status.UNFINISHED


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
  assert workdir.inspect(tmp_path / "run", _description()) is Status.NEW


@pytest.mark.parametrize("text", ["~nobody-of-that-name/x", "x" * 300])
def test_paths_that_cannot_be_are_refused(text):
  with pytest.raises(UserError, match="--workdir"):
    workdir.inspect(workdir.expand(text), _description())


def test_config_says_what_made_the_run(tmp_path):
  _create(tmp_path)
  config = json.loads((tmp_path / workdir.CONFIG).read_text())
  assert config["flags"]["a_thresh"] is None  # the default of the method
  assert config["stream"] == STREAM
  assert config["command"] == "the command"
  assert config["versions"]["jax"] and config["devices"]


def test_other_flags_are_named(tmp_path):
  _create(tmp_path)
  other = dataclasses.replace(CONFIG, a_thresh=0.9, seed=3, workdir="y")
  with pytest.raises(UserError) as error:
    workdir.inspect(tmp_path, _description(other))
  message = str(error.value)
  assert "--a_thresh (default, now 0.9)" in message
  assert "--seed (0, now 3)" in message
  assert "--workdir (" not in message


def test_other_frames_behind_the_same_address_are_refused(tmp_path):
  _create(tmp_path)
  with pytest.raises(UserError, match="--stream"):
    workdir.inspect(tmp_path, _description(stream={"kind": "folder"}))


def test_folder_of_something_else_is_refused_and_left_alone(tmp_path):
  (tmp_path / "thesis.tex").write_text("dear")
  with pytest.raises(UserError, match="not of a run"):
    workdir.inspect(tmp_path, _description())
  assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"flags": 3}'])
def test_broken_config_is_refused(tmp_path, content):
  (tmp_path / workdir.CONFIG).write_text(content)
  with pytest.raises(UserError, match="cannot be read"):
    workdir.inspect(tmp_path, _description())


def test_another_format_is_refused_by_its_number(tmp_path):
  _create(tmp_path)
  path = tmp_path / workdir.CONFIG
  content = json.loads(path.read_text())
  for number in (1, 99):
    path.write_text(json.dumps(content | {"format": number}))
    with pytest.raises(UserError, match=f"format {number}"):
      workdir.inspect(tmp_path, _description())


def test_file_in_the_way_is_refused(tmp_path):
  path = tmp_path / "file"
  path.write_text("")
  with pytest.raises(UserError, match="is a file"):
    workdir.inspect(path, _description())
  with pytest.raises(UserError, match="cannot be written"):
    _create(path / "below")


def test_unfinished_results_are_set_aside_not_lost(tmp_path):
  _create(tmp_path)
  for attempt in (1, 2):
    (tmp_path / workdir.METRICS).write_text(f"attempt {attempt}")
    (tmp_path / workdir.MASKS).mkdir()
    assert workdir.set_aside(tmp_path) == attempt
  assert workdir.num_interrupted(tmp_path) == 2
  kept = tmp_path / "interrupted"
  assert (kept / "1" / workdir.METRICS).read_text() == "attempt 1"
  assert (kept / "2" / workdir.METRICS).read_text() == "attempt 2"
  assert not (tmp_path / workdir.METRICS).exists()
  assert workdir.inspect(tmp_path, _description()) is Status.UNFINISHED


def test_default_that_has_changed_is_refused(tmp_path):
  options = {"system": {"a_thresh": 0.8, "u_max": 8}, "update": {"rate": 0.1}}
  old = _description() | {"options": options}
  with workdir.claim(tmp_path):
    workdir.create(tmp_path, old)
  assert workdir.inspect(tmp_path, old) is Status.UNFINISHED
  new = _description() | {"options": {"system": {"a_thresh": 0.9, "u_max": 8}}}
  words = r"other default of system a_thresh \(0.8, now 0.9\); name a new"
  with pytest.raises(UserError, match=words):
    workdir.inspect(tmp_path, new)

"""Whose a folder is, and that nothing in it is lost."""

import dataclasses
import json
import os

import pytest

from ojd.errors import RequestError
from ojd.run import workdir
from ojd.run.config import RunConfig
from ojd.run.workdir import Status

CONFIG = RunConfig(workdir="x")
STREAM = {"kind": "synthetic", "scene": "street"}


def _description(config=CONFIG, stream=STREAM):
  names = ("background", "person")
  return workdir.describe_run(config, stream, names, "the command")


def test_life_of_a_workdir(tmp_path):
  path = tmp_path / "deep" / "run"
  assert workdir.inspect(path, _description()) is Status.NEW
  workdir.create(path, _description())
  assert workdir.inspect(path, _description()) is Status.UNFINISHED
  workdir.write_json(path / workdir.SUMMARY, {"finished": False})
  assert workdir.inspect(path, _description()) is Status.UNFINISHED
  workdir.write_json(path / workdir.SUMMARY, {"finished": True})
  assert workdir.inspect(path, _description()) is Status.FINISHED


def test_config_says_what_made_the_run(tmp_path):
  workdir.create(tmp_path, _description())
  config = json.loads((tmp_path / workdir.CONFIG).read_text())
  assert config["flags"]["a_thresh"] == 0.8
  assert config["stream"] == STREAM
  assert config["command"] == "the command"
  assert config["versions"]["jax"] and config["devices"]


def test_other_flags_are_named(tmp_path):
  workdir.create(tmp_path, _description())
  other = dataclasses.replace(CONFIG, a_thresh=0.9, seed=3, workdir="y")
  with pytest.raises(RequestError) as error:
    workdir.inspect(tmp_path, _description(other))
  message = str(error.value)
  assert "--a_thresh (0.8, now 0.9)" in message
  assert "--seed (0, now 3)" in message
  assert "--workdir (" not in message


def test_other_frames_behind_the_same_address_are_refused(tmp_path):
  workdir.create(tmp_path, _description())
  with pytest.raises(RequestError, match="--stream"):
    workdir.inspect(tmp_path, _description(stream={"kind": "folder"}))


def test_folder_of_something_else_is_refused_and_left_alone(tmp_path):
  (tmp_path / "thesis.tex").write_text("dear")
  with pytest.raises(RequestError, match="not of a run"):
    workdir.inspect(tmp_path, _description())
  assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"flags": 3}'])
def test_broken_config_is_refused(tmp_path, content):
  (tmp_path / workdir.CONFIG).write_text(content)
  with pytest.raises(RequestError, match="cannot be read"):
    workdir.inspect(tmp_path, _description())


def test_file_in_the_way_is_refused(tmp_path):
  path = tmp_path / "file"
  path.write_text("")
  with pytest.raises(RequestError, match="is a file"):
    workdir.inspect(path, _description())
  with pytest.raises(RequestError, match="cannot be written"):
    workdir.create(path / "below", _description())


def test_unfinished_results_are_set_aside_not_lost(tmp_path):
  workdir.create(tmp_path, _description())
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

"""A file is replaced in one step, or left as it was."""

import os

import pytest

from ojd.formats.replacing import replacing


def test_file_is_there_whole_or_as_before(tmp_path):
  path = tmp_path / "a.json"
  with replacing(path) as beside:
    beside.write_text("first")
    assert not path.exists()
  assert path.read_text() == "first"
  with pytest.raises(OSError, match="full"), replacing(path) as beside:
    beside.write_text("sec")
    raise OSError("full")
  assert path.read_text() == "first" and os.listdir(tmp_path) == ["a.json"]

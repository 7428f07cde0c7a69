"""How many files a fleet may have open, and what its folder says."""

import json
import resource

import pytest

from ojd.errors import UserError
from ojd.fleet import capacity, folder, listing
from tests.reference import small_run


def test_more_files_are_allowed_where_they_are_needed(monkeypatch):
  limits, asked = [(1024, 4096)], []
  monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[0])
  monkeypatch.setattr(resource, "setrlimit", lambda kind, to: asked.append(to))
  capacity.allow_files(10)
  assert not asked
  capacity.allow_files(100)
  assert asked == [(256 + 12 * 100, 4096)]
  with pytest.raises(UserError, match="4096 are allowed here: 320 streams"):
    capacity.allow_files(400)
  limits[0] = (1024, resource.RLIM_INFINITY)
  capacity.allow_files(400)
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

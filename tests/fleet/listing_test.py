"""The list of streams: what it may say, and what is left out of it."""

import pytest

from ojd.errors import UserError
from ojd.fleet import listing
from ojd.fleet.listing import Entry
from ojd.streams import base


def _read(tmp_path, text):
  path = tmp_path / "list.txt"
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return listing.read(path)


def test_lines_are_addresses_with_or_without_a_name(tmp_path):
  entries, notes = _read(
    tmp_path,
    """
    # the site
    gate-1, rtsp://host/a
    /videos/a, b.mp4
    synthetic:street?seed=1
    images:DIR/{a,b}/*.png
    """,
  )
  assert not notes
  assert entries == [
    Entry("gate-1", "rtsp://host/a"),
    Entry("", "/videos/a, b.mp4"),
    Entry("", "synthetic:street?seed=1"),
    Entry("", "images:DIR/{a,b}/*.png"),
  ]


def test_a_stream_that_is_there_twice_is_told_of_and_taken_once(tmp_path):
  entries, notes = _read(
    tmp_path, "a, x.mp4\ny.mp4\nb, x.mp4\ncam, rtsp://me:secret@host/1\n" * 2
  )
  assert [entry.uri for entry in entries] == [
    *("x.mp4", "y.mp4", "rtsp://me:secret@host/1")
  ]
  assert len(notes) == 5
  assert notes[0] == "line 3 is left out: x.mp4: line 1 has it already"
  assert not any("secret" in note for note in notes)


def test_names_are_kept_and_told_apart():
  uris = "a/cam.mp4", "b/cam.mp4", "c.mp4"
  entries = list(map(Entry, ("", "", "a-cam.mp4"), uris))
  named, notes = listing.named(entries, {})
  names = "a-cam.mp4-2", "b-cam.mp4", "a-cam.mp4"
  assert not notes and named == list(map(Entry, names, uris))
  # The same streams in another order have the names that they had.
  known = {entry.uri: entry.name for entry in named}
  again, _ = listing.named(entries[1::-1], known)
  assert again == [named[1], named[0]]


def test_a_stream_with_a_password_is_known_again():
  entries = [Entry("", "rtsp://me:secret@host/1")]
  (first,), _ = listing.named(entries, {})
  assert "secret" not in first.name
  shown = base.without_password(first.uri)
  again, notes = listing.named(entries, {shown: first.name})
  assert (again, notes) == ([first], [])


def test_a_name_is_of_one_stream():
  known = {"old.mp4": "gate"}
  named, notes = listing.named([Entry("gate", "new.mp4")], known)
  assert not named
  assert notes == ["new.mp4 is left out: gate is the name of old.mp4"]


def test_what_is_no_list_is_refused(tmp_path):
  with pytest.raises(UserError, match="No such file"):
    listing.read(tmp_path / "none.txt")
  for text, words in (
    ("# nothing\n\n", "it names no stream"),
    (b"\xff\xfe\x00", "it is no list of streams"),
  ):
    with pytest.raises(UserError, match=words):
      _read(tmp_path, text)

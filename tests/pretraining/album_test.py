"""An album holds what the streams show, and shows rare classes more often."""

import numpy as np

from ojd.pretraining import album
from ojd.streams import base as streams
from ojd.teachers import tiny
from tests.reference.compare import equal

PLAN = album.Plan(seed=5, num_worlds=3, frames_per_world=2, height=64, width=96)


def test_pages_are_frames_of_streams_never_judged(monkeypatch):
  opened = []
  real = streams.open_stream

  def open_stream(address, *size):
    opened.append(real(address, *size))
    return opened[-1]

  monkeypatch.setattr(streams, "open_stream", open_stream)
  frames, things, class_ids = album._draw_world((PLAN, 1))
  (stream,) = opened
  assert int(stream.options.seed) >= album.FIRST_SEED
  samples = list(stream.read())
  for frame, thing, ids in zip(frames, things, class_ids, strict=True):
    (match,) = [s for s in samples if np.array_equal(s.frame, frame)]
    names = np.array(stream.spec.class_names)
    found = np.array(album.CLASS_NAMES)[ids[thing]]
    np.testing.assert_array_equal(found, names[match.truth])


def test_same_plan_same_album_and_progress_is_told():
  assert album.CLASS_NAMES == tiny.CLASS_NAMES
  told = []
  one, other = album.draw(PLAN, told.append), album.draw(PLAN)
  assert told == [1, 2, 3]
  equal(one, other)
  assert not np.array_equal(one.frames[0], one.frames[2])
  rest = album.draw(PLAN._replace(seed=6))
  assert not np.array_equal(one.frames, rest.frames)


def test_rare_classes_are_drawn_by_the_root_of_their_rarity():
  class_ids = np.zeros((100, 256), np.uint8)
  class_ids[:, 1] = 1  # a person everywhere
  class_ids[:2, 2] = 2  # a bicycle in two frames of a hundred
  blank = np.zeros((100, 4, 4), np.uint8)
  shares = album.frame_shares(album.Album(blank, blank, class_ids))
  assert np.isclose(shares.sum(), 1.0)
  np.testing.assert_allclose(shares[0] / shares[50], np.sqrt(0.5 / 0.02))

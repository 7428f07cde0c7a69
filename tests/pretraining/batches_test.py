"""Batches of synthetic worlds and of COCO; the album of frames of worlds."""

import jax
import numpy as np
import pytest

from ojd.formats import coco
from ojd.pretraining import album, batches, trainer
from ojd.streams import base as streams
from ojd.teachers import tiny
from tests.reference import coco_folder
from tests.reference.compare import equal

RECIPE = trainer.Recipe(batch=3, height=64, width=96)


@pytest.fixture
def images(tmp_path):
  folder = coco_folder.write(tmp_path)
  annotations = folder / "annotations" / "instances_train2017.json"
  return coco.open_coco(folder / "train2017", annotations)


@pytest.fixture(scope="module")
def pages():
  return album.draw(album.Plan(0, 2, 2, 64, 96))


def test_batches_of_worlds_are_a_function_of_the_step(pages):
  one, other = batches.Worlds(RECIPE, pages), batches.Worlds(RECIPE, pages)
  other(3)
  equal(one(7), other(7))
  assert not np.array_equal(one(7)[0], one(8)[0])


def test_hosts_make_the_rows_of_one_batch(pages, images):
  for kind, data in ((batches.Worlds, pages), (batches.Coco, images)):
    whole = kind(RECIPE, data)
    parts = [kind(RECIPE, data, rows) for rows in (slice(0, 1), slice(1, 3))]
    for step in range(4):
      made = [part(step) for part in parts]
      equal(whole(step), jax.tree.map(lambda *x: np.concatenate(x), *made))


def test_frames_and_classes_move_together():
  """Where every pixel says its class, it says so whatever is done to it."""
  rng = np.random.default_rng(0)
  things = np.zeros((4, 64, 96), np.uint8)
  things[:, 16:48, 24:60] = 1
  class_ids = np.zeros((4, 256), np.uint8)
  class_ids[:, 1] = 3
  frames = (50 * class_ids[0][things])[..., None].repeat(3, -1).astype(np.uint8)
  batch_fn = batches.Worlds(RECIPE, album.Album(frames, things, class_ids))
  seen = set()
  for step in range(8):
    got, labels = batch_fn(step)
    # Bilinear edges may be a pixel off.
    wrong = np.abs(got[..., 0].astype(int) - 50 * labels.classes) > 75
    assert wrong.mean() < 0.02
    assert (labels.weights[labels.classes == 3] == 5).all()
    seen |= {int((c == 3).sum()) for c in labels.classes}
  assert len(seen) > 5  # of many sizes
  box = batches.zoom_box(rng, 64, 96)
  frame, classes = batches.zoom(frames[0], class_ids[0][things[0]], box)
  assert frame.shape == (64, 96, 3) and classes.shape == (64, 96)


def test_the_next_batch_is_made_meanwhile_and_order_does_not_matter():
  asked = []
  batch = batches.ahead(lambda step: asked.append(step) or step)
  assert [batch(step) for step in (4, 5, 9, 10)] == [4, 5, 9, 10]
  assert asked[:2] == [4, 5]


def test_an_epoch_of_coco_shows_each_picture_once(images):
  recipe = RECIPE._replace(batch=1, height=96, width=96)
  batch_fn = batches.Coco(recipe, images)
  for epoch in range(2):
    frames = [batch_fn(5 * epoch + i)[0][0] for i in range(5)]
    assert sorted(f[0].max() for f in frames) == [0, 30, 60, 90, 120]
  frames, labels = batch_fn(0)
  assert frames.shape == (1, 96, 96, 3)
  padding = labels.classes == 255
  assert padding.mean() == pytest.approx(1 / 3, abs=0.02)
  np.testing.assert_array_equal(labels.weights, np.where(padding, 0.0, 10.0))


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
  rest = album.draw(PLAN._replace(seed=6, num_worlds=1))
  assert not np.array_equal(one.frames[:2], rest.frames)


def test_rare_classes_are_drawn_by_the_root_of_their_rarity():
  class_ids = np.zeros((100, 256), np.uint8)
  class_ids[:, 1] = 1  # a person everywhere
  class_ids[:2, 2] = 2  # a bicycle in two frames of a hundred
  blank = np.zeros((100, 4, 4), np.uint8)
  shares = album.frame_shares(album.Album(blank, blank, class_ids))
  assert np.isclose(shares.sum(), 1.0)
  np.testing.assert_allclose(shares[0] / shares[50], np.sqrt(0.5 / 0.02))

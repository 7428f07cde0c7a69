"""Batches for training beforehand, and the binary on both kinds of data."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments import album, lessons
from ojd import pretraining
from ojd.formats import coco
from ojd.models import pretrained
from tests import binaries

RECIPE = pretraining.Recipe(batch=3, height=64, width=96)


@pytest.fixture(scope="module")
def pages():
  return album.draw(album.Plan(0, 2, 2, 64, 96))


def test_batches_of_worlds_are_a_function_of_the_step(pages):
  one, other = lessons.Worlds(RECIPE, pages), lessons.Worlds(RECIPE, pages)
  other(3)
  for a, b in zip(_arrays(one(7)), _arrays(other(7)), strict=True):
    np.testing.assert_array_equal(a, b)
  assert not np.array_equal(one(7)[0], one(8)[0])


def test_hosts_make_the_rows_of_one_batch(pages, coco_folder):
  images = coco.open_coco(
    coco_folder / "train2017",
    coco_folder / "annotations" / "instances_train2017.json",
  )
  for kind, data in ((lessons.Worlds, pages), (lessons.Coco, images)):
    whole = kind(RECIPE, data)
    parts = [kind(RECIPE, data, rows) for rows in (slice(0, 1), slice(1, 3))]
    for step in range(4):
      made = [_arrays(part(step)) for part in parts]
      for a, *b in zip(_arrays(whole(step)), *made, strict=True):
        np.testing.assert_array_equal(a, np.concatenate(b))


def _arrays(batch):
  frames, labels = batch
  return frames, labels.classes, labels.weights


def test_frames_and_classes_move_together():
  """Where every pixel says its class, it says so whatever is done to it."""
  rng = np.random.default_rng(0)
  things = np.zeros((4, 64, 96), np.uint8)
  things[:, 16:48, 24:60] = 1
  class_ids = np.zeros((4, 256), np.uint8)
  class_ids[:, 1] = 3
  frames = (50 * class_ids[0][things])[..., None].repeat(3, -1).astype(np.uint8)
  batch_fn = lessons.Worlds(RECIPE, album.Album(frames, things, class_ids))
  seen = set()
  for step in range(8):
    got, labels = batch_fn(step)
    # Bilinear edges may be a pixel off.
    wrong = np.abs(got[..., 0].astype(int) - 50 * labels.classes) > 75
    assert wrong.mean() < 0.02
    assert (labels.weights[labels.classes == 3] == 5).all()
    seen |= {int((c == 3).sum()) for c in labels.classes}
  assert len(seen) > 5  # of many sizes
  box = lessons.zoom_box(rng, 64, 96)
  frame, classes = lessons.zoom(frames[0], class_ids[0][things[0]], box)
  assert frame.shape == (64, 96, 3) and classes.shape == (64, 96)


def test_the_next_batch_is_made_meanwhile_and_order_does_not_matter():
  asked = []

  def batch_fn(step):
    asked.append(step)
    return step

  batch = lessons.ahead(batch_fn)
  assert [batch(step) for step in (4, 5, 9, 10)] == [4, 5, 9, 10]
  assert asked[:2] == [4, 5]


@pytest.fixture
def coco_folder(tmp_path):
  """Five pictures, a square of another class in each."""
  (tmp_path / "train2017").mkdir()
  (tmp_path / "annotations").mkdir()
  images, annotations = [], []
  for i in range(5):
    picture = np.full((40, 60, 3), 30 * i, np.uint8)
    Image.fromarray(picture).save(tmp_path / "train2017" / f"{i}.png")
    images.append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 60})
    annotations.append(
      {
        "id": i,
        "image_id": i,
        "category_id": 10 * (1 + i % 2),
        "iscrowd": 0,
        "area": 100,
        "bbox": [10, 10, 10, 10],
        "segmentation": [[10, 10, 20, 10, 20, 20, 10, 20]],
      }
    )
  about = {
    "images": images,
    "annotations": annotations,
    "categories": [{"id": 10, "name": "cat"}, {"id": 20, "name": "dog"}],
  }
  path = tmp_path / "annotations" / "instances_train2017.json"
  path.write_text(json.dumps(about))
  return tmp_path


def test_an_epoch_of_coco_shows_each_picture_once(coco_folder):
  images = coco.open_coco(
    coco_folder / "train2017",
    coco_folder / "annotations" / "instances_train2017.json",
  )
  recipe = RECIPE._replace(batch=1, height=96, width=96)
  batch_fn = lessons.Coco(recipe, images)
  for epoch in range(2):
    frames = [batch_fn(5 * epoch + i)[0][0] for i in range(5)]
    assert sorted(f[0].max() for f in frames) == [0, 30, 60, 90, 120]
  frames, labels = batch_fn(0)
  assert frames.shape == (1, 96, 96, 3)
  padding = labels.classes == 255
  assert padding.mean() == pytest.approx(1 / 3, abs=0.02)
  np.testing.assert_array_equal(labels.weights, np.where(padding, 0.0, 10.0))


@pytest.mark.slow
def test_binary_trains_on_coco_and_writes_a_student(coco_folder):
  out = coco_folder / "out"
  result = binaries.run(
    "pretrain", f"--data=coco:{coco_folder}", f"--workdir={out}", "--smoke"
  )
  assert result.returncode == 0, result.stderr
  student = pretrained.load(out / "student.safetensors")
  assert student.class_names == ("background", "cat", "dog")
  assert student.about["optimizer"] == "slow_adam"
  assert student.about["decay_steps"] == 50  # ten epochs of five, one a step


@pytest.mark.slow
def test_binary_learns_one_stream_by_heart(tmp_path):
  flags = (
    *("--stream=synthetic:sports?num_frames=7", "--teacher=ground_truth"),
    *("--height=32", "--width=48", "--classes=person", "--every=3"),
    *(f"--workdir={tmp_path}", "--smoke"),
  )
  result = binaries.run("pretrain", *flags)
  assert result.returncode == 0, result.stderr
  student = pretrained.load(tmp_path / "student.safetensors")
  assert student.class_names == ("background", "person")
  assert (student.about["optimizer"], student.about["every"]) == ("sgd", 3)
  about = json.loads((tmp_path / "album" / "about.json").read_text())
  assert about["count"] == 3  # frames 0, 3 and 6
  result = binaries.run("pretrain", *flags, "--init=random")
  assert result.returncode == 2 and result.stderr.count("\n") == 1
  assert "frames of another stream or teacher" in result.stderr


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--data=imagenet"], "--data=imagenet: synthetic or coco:DIR"),
    (["--data=coco:/nowhere"], "/nowhere"),
    (["--num_steps=0"], "--num_steps=0: above 0"),
    (["--stream=synthetic:park", "--every=0"], "--every=0: at least 1"),
    ([], "--workdir=DIR is missing"),
  ],
)
def test_bad_requests_are_one_line(flags, words, tmp_path):
  workdir = [f"--workdir={tmp_path}"] if flags else []
  result = binaries.run("pretrain", *flags, *workdir)
  assert result.returncode == 2
  assert result.stderr.count("\n") == 1 and words in result.stderr


def test_recipe_for_coco_is_the_published_one():
  recipe = lessons.COCO
  assert (recipe.num_steps, recipe.batch, recipe.height) == (150_000, 6, 768)
  assert (recipe.learning_rate, recipe.weight_decay) == (0.1, 4e-5)

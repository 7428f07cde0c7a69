"""Tests of the synthetic stream: purity, exact labels, motion, errors."""

import ast
import cmath
import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ojd.streams import base
from ojd.streams.synthetic import bodies, draws, places, raster, walls, world
from tests import binaries
from tests.reference import damage
from tests.reference.refusals import refused

SCENES = ("street", "sports", "park", "night_fall", "cuts")
H, W = 64, 96


def _open(rest: str, height=H, width=W):
  return base.open_stream(f"synthetic:{rest}", height, width)


def _sample(stream, t: int):
  return next(stream.read(t))


def _difference(first, second) -> float:
  return float(np.abs(first.astype(np.float32) - second).mean())


def digests(scene: str, ts) -> dict[int, str]:
  """Of frames and truths, read in the order of `ts`."""
  stream = _open(f"{scene}?seed=2&cut_every=7")
  samples = {t: _sample(stream, t) for t in ts}
  contents = {
    t: x.frame.tobytes() + x.truth.tobytes() for t, x in samples.items()
  }
  return {t: hashlib.sha256(x).hexdigest() for t, x in contents.items()}


@pytest.mark.parametrize("scene", SCENES)
def test_frame_is_a_function_of_its_index(scene):
  rest = f"{scene}?seed=2&cut_every=7&num_frames=18"
  stream = _open(rest)
  assert stream.spec.num_frames == 18
  in_order = list(stream.read())
  assert [sample.t for sample in in_order] == list(range(18))
  assert [sample.t for sample in stream.read(16)] == [16, 17]
  assert list(stream.read(18)) == []
  fresh = _open(rest)
  for t in (17, 6, 7, 0):  # backwards, and over the cuts
    sample = _sample(fresh, t)
    np.testing.assert_array_equal(sample.frame, in_order[t].frame)
    np.testing.assert_array_equal(sample.truth, in_order[t].truth)


def test_another_process_draws_the_same():
  """And so does this one when its bounded caches hold other places."""
  code = (
    "from tests.streams import synthetic_test as s;"
    "print([s.digests(scene, (200, 3)) for scene in s.SCENES])"
  )
  command = [sys.executable, "-c", code]
  env = os.environ | {"PYTHONHASHSEED": "77"}
  there = subprocess.check_output(command, env=env, cwd=binaries.ROOT)
  here = [digests(scene, (3, 200)) for scene in SCENES]
  for scene in SCENES:
    for seed in (7, 8, 9):
      _sample(_open(f"{scene}?seed={seed}", 32, 32), 0)
  again = [digests(scene, (3, 200)) for scene in SCENES]
  assert ast.literal_eval(there.decode()) == here == again


@pytest.mark.parametrize("scene", ("street", "sports", "park"))
def test_same_world_at_another_size(scene):
  large = _sample(_open(f"{scene}?seed=4", 192, 288), 50).truth > 0
  small = _sample(_open(f"{scene}?seed=4", 96, 144), 50).truth > 0
  reduced = large.reshape(96, 2, 144, 2).mean(axis=(1, 3)) >= 0.5
  overlap = (reduced & small).sum() / (reduced | small).sum()
  # The rasteriser rounds outlines to whole pixels.
  assert overlap > 0.75


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("size", ((32, 32), (97, 161), (64, 300)))
def test_truth_is_the_union_of_disjoint_masks(scene, size):
  stream = _open(f"{scene}?seed=5&cut_every=40&num_frames=131", *size)
  with pytest.raises(IndexError, match="frame 131 of 131"):
    stream.instances(131)
  for t in (0, 60, 130):
    sample, found = _sample(stream, t), stream.instances(t)
    damage.check(sample, stream.spec)
    truth = sample.truth
    assert found.masks.dtype == bool and len(found.masks)
    assert found.masks.sum(axis=0).max() == 1
    drawn = np.zeros_like(truth)
    for (y0, x0, y1, x1), _, class_id, mask in zip(*found, strict=True):
      drawn[mask] = class_id
      inside = mask[int(y0) : int(y1), int(x0) : int(x1)]
      assert inside.sum() == mask.sum()  # and the box is tight
      for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
        assert edge.any()
    np.testing.assert_array_equal(drawn, truth)
    assert (found.class_ids > 0).all() and (found.scores == 1.0).all()


VEHICLES = {"car", "bus", "truck"}
STREET = VEHICLES | {"person", "bicycle", "dog"}


@pytest.mark.parametrize(
  "scene,names",
  (
    *((scene, STREET) for scene in ("street", "night_fall", "cuts")),
    ("sports", {"person"}),
    ("park", {"person", "bicycle", "dog"}),
  ),
)
def test_every_class_occurs_and_actors_hold_a_fair_share(scene, names):
  stream = _open(f"{scene}?seed=6&cut_every=60")
  assert stream.spec.class_names[0] == "background"
  assert set(stream.spec.class_names[1:]) == names
  truths = np.stack([_sample(stream, t).truth for t in range(0, 600, 15)])
  assert set(np.unique(truths)) == set(range(len(names) + 1))
  assert 0.04 < (truths > 0).mean() < 0.25


@pytest.mark.parametrize("scene", SCENES)
def test_things_move_and_seeds_give_different_worlds(scene):
  stream = _open(f"{scene}?seed=1")
  first, second = _sample(stream, 20), _sample(stream, 30)
  assert (first.truth != second.truth).mean() > 0.005
  still = (first.truth == 0) & (second.truth == 0)
  assert _difference(first.frame[still], second.frame[still]) > 1.0
  other = _sample(_open(f"{scene}?seed=0"), 20)
  assert _difference(first.frame, other.frame) > 8.0
  assert (first.truth != other.truth).any()


@pytest.mark.parametrize("rest", ("cuts?seed=2", "park?seed=2&cuts=1"))
def test_the_picture_changes_abruptly_at_a_cut(rest):
  stream = _open(f"{rest}&cut_every=10")
  frames = [s.frame for s in itertools.islice(stream.read(), 32)]
  steps = [_difference(a, b) for a, b in itertools.pairwise(frames)]
  cuts = [steps.pop(i) for i in (29, 19, 9)]
  assert min(cuts) > 2.5 * max(steps)


def test_cuts_lead_to_every_kind_of_place():
  scenes = [places.key_at("cuts", 0, turn).scene for turn in range(9)]
  assert set(scenes) == set(SCENES) - {"cuts"}
  assert all(a != b for a, b in itertools.pairwise(scenes))


def test_night_falls():
  stream = _open("night_fall?seed=0&num_frames=200")
  means = [_sample(stream, t).frame.mean() for t in (0, 90, 120, 150, 199)]
  assert means[-1] < 0.5 * means[0]
  assert means[1] > means[2] > means[3] > means[4]


def test_twice_as_far_is_half_as_high():
  lens = world.Lens(eye=2.0, focal=1.3, horizon=0.4)
  view = world.view_at(lens, world.Window(-0.8, 0.0, 1.6, 1.0), 800)
  look = bodies.draw_look(draws.generator(0))
  heights = []
  for z in (5.0, 10.0, 20.0):
    pen = raster.Pen(Image.new("RGB", (1280, 800)), view, (0.5, -0.3))
    pen.begin(1, 0.0, z, haze=0.0, gain=1.0, rough=1.0)
    pose = bodies.walk_pose(look.height, 1.0, 0.4, 0.0)
    bodies.draw_walker(pen, look, pose, 0.0, z, 0.0)
    rows = np.flatnonzero((np.asarray(pen.image)[..., 3] == 1).any(axis=1))
    heights.append(rows[-1] + 1 - rows[0])
    # Feet: the ground at depth z is drawn at v = horizon + focal eye / z.
    foot = 800 * (0.4 + 1.3 * 2.0 / z)
    assert abs(rows[-1] - foot) < 0.02 * heights[-1] + 2
  assert heights[0] == pytest.approx(2 * heights[1], abs=5)
  assert heights[1] == pytest.approx(2 * heights[2], abs=5)
  assert heights[0] == pytest.approx(800 * 1.3 * look.height / 5.0, rel=0.08)


def test_backdrop_and_actors_share_one_projection():
  lens = world.Lens(eye=2.1, focal=1.3, horizon=0.41)
  window = world.Window(-0.6, 0.1, 1.4, 0.84)
  view = world.view_at(lens, window, 420)
  plate = walls.Plate(None, -1.2, -0.05, 300.0, lens, False)
  put = raster.Pen(Image.new("RGB", (700, 420)), view, (0, 0)).place(0, 0, 0)
  for x, y, z in ((0.0, 0.0, 5.0), (-3.0, 1.7, 9.0), (12.0, 6.0, 40.0)):
    column, row = plate.at(x, y, z)
    u, v = column / 300.0 - 1.2, row / 300.0 - 0.05
    scale = 420 / window.height
    expected = ((u - window.left) * scale, (v - window.top) * scale)
    assert put(x, y, z) == pytest.approx(expected)


@pytest.mark.parametrize("scene", ("street", "park"))
def test_actors_enter_from_outside_or_from_afar(scene):
  key = places.key_at(scene, 0, 0)
  place = places.build(key)
  kiosks = [prop for prop in place.props if prop.kind == "kiosk"]
  times = [
    {id(a.looks): a for a in places.cast(key, i / 10.0)} for i in range(800)
  ]
  for before, now in itertools.pairwise(times):
    for name in before.keys() ^ now.keys():
      x, z = (actor := (before | now)[name]).x, actor.z
      is_outside = abs(place.lens.focal * x / z) > world.EDGE_U - 0.06
      is_hidden = any(abs(k.x - x) < 1.6 and 0 < z - k.z < 2 for k in kiosks)
      assert is_outside or is_hidden or z > 100, actor


def test_vehicles_never_drive_through_each_other():
  for seed, i in itertools.product(range(3), range(200)):
    cast = places.cast(places.key_at("street", seed, 0), 0.3 * i)
    cars = [a for a in cast if a.kind in VEHICLES]
    for a, b in itertools.permutations(cars, 2):
      apart = complex(a.x - b.x, a.z - b.z) * cmath.rect(1, -b.heading)
      is_ahead = abs(apart.real) > b.looks[0].length / 2
      assert is_ahead or abs(apart.imag) > b.looks[0].width / 2


def test_cycle_comes_back_to_the_first_place():
  rest = "street?seed=5&cuts=1&cut_every=10&num_frames=40"
  cycle = _open(f"{rest}&cycle=2", 96, 160)
  onward = _open(rest, 96, 160)
  places_at = lambda t: [_sample(x, t).frame for x in (cycle, onward)]
  for t in (5, 15):
    np.testing.assert_array_equal(*places_at(t))
  back, elsewhere = places_at(25)
  first = _sample(cycle, 5).frame
  # The same ground and camera; actors and clouds went on.
  assert _difference(back, first) < 0.5 * _difference(elsewhere, first)
  assert cycle.spec.identity["stream"].endswith("&cycle=2")


def test_identity_tells_streams_apart():
  spec = base.open_stream("synthetic:street?seed=1").spec
  assert spec[:4] == (192, 320, 25.0, 600)
  first = _open("street?seed=1").spec.identity
  again = _open("street?cuts=0&seed=1&fps=25").spec.identity
  assert first == again
  assert first["stream"] == (
    "synthetic:street?seed=1&cuts=0&cut_every=150&num_frames=600&fps=25"
  )
  others = ["seed=2", "seed=1&cuts=1", "seed=1&fps=30", "seed=1234567"]
  names = {_open(f"street?{x}").spec.identity["stream"] for x in others}
  assert len(names) == len(others) and first["stream"] not in names


@pytest.mark.parametrize(
  "rest,known",
  (
    ("beach", "street, sports, park, night_fall, cuts"),
    ("street?speed=2", "seed, cuts, cut_every, num_frames, fps, cycle"),
    ("street?seed=-1", "seed=-1 is not from 0"),
    ("street?seed=many", "seed='many' is not int"),
    ("street?cuts=2", "cuts=2 is not from 0 to 1"),
    ("cuts?cuts=0", "cuts=0 is not from 1 to 1"),
    ("street?cut_every=0", "cut_every=0 is not from 1"),
    ("street?num_frames=0", "num_frames=0 is not from 1"),
    ("street?fps=0", "fps=0.0 is not from 1.0"),
    ("street?fps=nan", "fps=nan is not from 1.0"),
  ),
)
def test_errors_say_what_is_known(rest, known):
  with refused(known):
    _open(rest)

"""Teachers needed, beside all numbers of teachers tried one by one."""

import csv

import numpy as np
import pytest
from PIL import Image

from ojd.errors import UserError
from ojd.fleet import plan, plan_chart
from tests.reference import traces


def _scene(name="street", seed=0, service=0.5, size=300):
  """Streams of 100 frames a second that ask about every ten seconds."""
  rng = np.random.default_rng(seed)
  before = rng.uniform(0.3, 0.6, size)
  interval = 1 + rng.geometric(1 / 1000, size)
  numbers = {"stride": 10, "num_updates": 8, "learn": 500.0, "predict": 2.0}
  mious = {"before": before, "after": before + 0.2}
  mious["following"] = np.roll(before, -1)
  streams = traces.by_hand(100.0, interval, 1e3 * service, **numbers, **mious)
  return plan.Scene(name, (streams,))


@pytest.fixture(autouse=True)
def _few_events(monkeypatch):
  """A tenth of them: what is compared here is no tail of a distribution."""
  monkeypatch.setattr(plan, "_KEY_FRAMES", 2000)
  monkeypatch.setattr(plan, "_LEAST_STREAMS", 200)


def test_the_fewest_teachers_are_found():
  scene, terms = _scene(), plan.Terms(latency=1.0)
  least = plan.least_teachers(scene, 60, terms)
  assert least == 3  # 60 streams, half a second each every ten
  tried = [plan.point(scene, 60, k, terms) for k in range(least, 12)]
  first = next(p for p in tried if p.p95 <= 1.0)
  assert plan.needed(scene, 60, terms) == first
  assert first.teachers > least


def test_a_point_says_what_it_is_of():
  found = plan.point(_scene(), 100, 8, plan.Terms())
  assert (found.streams, found.teachers, found.per_1000) == (100, 8, 80)
  assert found.load == pytest.approx(found.busy, rel=0.1)
  assert found.p50 <= found.p95 <= found.p99
  # A fifth of a device answers frames, half a second in ten learns.
  assert found.devices_per_1000 == pytest.approx(250, rel=0.1)
  assert found.key_frames * 2 < found.events


def test_larger_fleets_need_fewer_teachers_each():
  found = plan.by_size([_scene()], (10, 100, 1000), plan.Terms(latency=0.8))
  per_1000 = [point.per_1000 for point in found]
  assert per_1000 == sorted(per_1000, reverse=True)
  assert per_1000[0] > 2 * per_1000[-1]
  # Never fewer than the work takes.
  assert per_1000[-1] >= 1e3 * plan.alone(_scene(), plan.Terms())[1]


def test_batches_save_teachers():
  scene = _scene()
  one = plan.needed(scene, 300, plan.Terms(latency=2.0))
  batches = plan.Terms(latency=2.0, batch=8, more=0.2)
  eight = plan.needed(scene, 300, batches)
  assert eight.teachers < 0.6 * one.teachers
  assert eight.p95 <= 2.0


def test_what_no_number_of_teachers_holds_is_refused():
  with pytest.raises(UserError, match=r"--latency=0\.3: .* 0\.500 s for 95%"):
    plan.needed(_scene(), 10, plan.Terms(latency=0.3))
  # A teacher each answers just in time, whatever the rounding.
  assert plan.needed(_scene(), 10, plan.Terms(latency=0.5)).p95 < 0.51


def test_a_sweep_goes_from_too_few_to_plenty():
  found = plan.sweep([_scene()], 200, plan.Terms())
  assert [p.teachers for p in found] == sorted({p.teachers for p in found})
  assert found[0].load > 1.5 and found[-1].load < 0.6
  assert found[0].p50 > 5 * found[-1].p50
  assert found[0].lost > 1 and found[-1].lost < 0.01


def test_the_table_and_the_picture(tmp_path):
  scenes = [_scene(), _scene("park", seed=1, service=1.0)]
  terms = plan.Terms(latency=2.0)
  sizes = plan.by_size(scenes, (10, 100), terms)
  closer = plan.sweep(scenes, 50, terms)
  lines = plan.text(sizes).splitlines()
  assert len({len(line) for line in lines}) == 1 and len(lines) == 5
  words = lines[2].split()
  assert words[:4] == ["street", "100", str(sizes[1].teachers), words[3]]
  assert float(words[3]) == pytest.approx(10 * sizes[1].teachers)
  plan.write_csv({"needed": sizes, "sweep": closer}, tmp_path / "plan.csv")
  with (tmp_path / "plan.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == len(sizes) + len(closer)
  assert float(rows[0]["p95"]) == pytest.approx(sizes[0].p95, abs=1e-5)
  facts = {scene.name: plan.alone(scene, terms) for scene in scenes}
  path = tmp_path / "plan.png"
  plan_chart.write_png(sizes, closer, facts, terms, path)
  pixels = np.asarray(Image.open(path).convert("RGB"))
  assert pixels.shape[1] > 1000
  # The curves are there, in their colours.
  for color in ((0x17, 0x63, 0xC7), (0xC7, 0x53, 0x00)):
    assert (pixels == color).all(-1).sum() > 200

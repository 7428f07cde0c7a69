"""What a live view keeps of a run: charts, counts, the text for Prometheus."""

import asyncio
import contextlib
import json
import re

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from prometheus_client import parser

from ojd.run import stats as stats_lib
from ojd.run.runner import About
from ojd.serve import metrics
from ojd.serve import painter as painter_lib
from ojd.serve.display import NOTHING, UNSEEN, Counts, LiveDisplay, Series
from tests.reference import live_run


@hypothesis.given(
  st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=300),
  st.integers(2, 20),
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_series_averages_neighbours_and_stays_short(values, most):
  series = Series(most)
  for t, value in enumerate(values):
    series.add(t, value)
    assert len(series.tail().points) <= most
  tail = series.tail()
  width = tail.seen.width
  # Each point is the mean of `width` values in a row, the last of what is left.
  for i, (t, mean) in enumerate(tail.points):
    assert t == i * width
    assert mean == pytest.approx(np.mean(values[t : t + width]), abs=1e-3)
  assert len(tail.points) == -(-len(values) // width)
  assert width == 1 or len(values) > most


@hypothesis.given(st.lists(st.integers(1, 30), max_size=12))
@hypothesis.settings(deadline=None, max_examples=60)
def test_tails_put_together_are_the_series(steps):
  series, known, seen, t = Series(16), [], NOTHING, 0
  for num_values in steps:
    for _ in range(num_values):
      series.add(t, t % 7)
      t += 1
    start, points, seen = series.tail(seen)
    known = known[:start] + points
    assert known == series.tail().points
  assert len(series.tail(seen).points) <= 1


def _sent(news):
  return json.loads(json.dumps(news, allow_nan=False))


def test_news_come_once_and_then_what_is_new():
  now = [0.0]
  display = LiveDisplay(clock=lambda: now[0])
  live_run.begin(display)
  for t in range(20):
    now[0] += 0.1
    live_run.step(display, t)
  news, cursor = display.news(UNSEEN)
  news = _sent(news)
  assert news["state"] == "running"
  assert news["about"]["stream"] == "folder:clip"
  classes = news["about"]["classes"]
  assert [c["name"] for c in classes] == ["person", "<b>car</b>"]
  assert re.fullmatch("#[0-9a-f]{6}", classes[0]["color"])
  assert news["series"]["updates"]["points"] == [[0, 8], [8, 8], [16, 7]]
  assert [t for t, _ in news["series"]["miou"]["points"]] == list(range(20))
  assert news["series"]["fps"]["points"][-1] == [19, pytest.approx(10.0)]
  assert news["counts"]["num_updates"] == 40
  assert display.news(cursor) == (None, cursor)
  live_run.step(display, 20)
  news, cursor = display.news(cursor)
  assert "about" not in news
  assert news["series"]["stride"] == {"start": 19, "points": [(19, 8), (20, 8)]}
  display.end(live_run.SUMMARY)
  news, _ = display.news(cursor)
  assert news["state"] == "finished"
  assert _sent(news)["summary"]["per_class"] == {"person": 0.8125}


@pytest.mark.parametrize("seconds,fps", [(0.1, 10.0), (4.0, 0.25)])
def test_frames_per_second_are_of_late_and_fall_when_nothing_comes(
  seconds, fps
):
  now = [0.0]
  display = LiveDisplay(clock=lambda: now[0])
  for t in range(40):
    now[0] = t * seconds
    display.line({"t": t})
  assert display.counts().fps == pytest.approx(fps)
  now[0] += 1000 * seconds
  assert display.counts().fps < fps / 500
  display.end(live_run.SUMMARY)
  assert display.counts().fps == 0


def test_past_lines_are_on_the_charts_and_odd_ones_are_not():
  display = LiveDisplay()
  past = [
    *(live_run.line(0), {"t": "x", "stride": 8}),
    {"t": 1, "stride": True, "eval_miou": float("nan")},
    {"t": 2, "stride": "8", "eval_miou": None, "is_key": True},
  ]
  display.begin(About("s", "jit", live_run.NAMES), past)
  series = display.news(UNSEEN)[0]["series"]
  assert series["stride"]["points"] == [(0, 8)]
  assert len(series["miou"]["points"]) == len(series["updates"]["points"]) == 1
  assert series["fps"]["points"] == []  # nobody knows when those frames were


def test_passwords_of_streams_are_not_shown():
  display = LiveDisplay()
  stream = "rtsp://user:secret@camera/1"
  display.begin(About(stream, "jit", live_run.NAMES))
  display.progress(live_run.progress(1, problem=f"lost {stream}"))
  text = json.dumps(display.news(UNSEEN)[0])
  assert "secret" not in text and "rtsp://camera/1" in text


def test_run_that_broke_off_has_failed_unless_it_ended_before():
  display = LiveDisplay()
  display.fail()
  assert display.counts().state == "failed"
  display = LiveDisplay()
  display.end(live_run.SUMMARY | {"finished": False})
  display.fail()
  assert display.counts().state == "stopped"


@contextlib.asynccontextmanager
async def _painting(latest_fn):
  """A painter at work until the end of the block."""
  painter = painter_lib.Painter(latest_fn)
  task = asyncio.create_task(painter.work())
  yield painter
  painter.close()
  await asyncio.wait_for(task, 2)


def test_frame_is_painted_once_and_only_for_those_who_look():
  display, calls = LiveDisplay(), []
  live_run.begin(display)

  async def look():
    latest_fn = lambda: calls.append(1) or display.latest()
    async with _painting(latest_fn) as painter:
      display.put(live_run.record(0))
      assert await painter.wait(1, 0.2) is None and not calls
      with painter.watching(), painter.watching():
        first = await painter.wait(1, 5)
        display.put(live_run.record(1))
        second = await painter.wait(2, 5)
        assert await painter.wait(1, 5) is second  # the later one is as good
        assert (first.number, second.number) == (1, 2)
        assert first.jpeg != second.jpeg
        assert await painter.wait(3, 0.2) is None
        display.put(live_run.record(2))
        painter.close()
        # The last one is painted yet.
        assert (await painter.wait(3, 5)).number == 3
    assert painter.is_over and await painter.wait(4, 5) is None

  asyncio.run(look())


def test_frame_that_cannot_be_painted_ends_the_pictures_alone(caplog):
  display = LiveDisplay()
  live_run.begin(display)
  display.put(live_run.record(0)._replace(frame=None))

  async def look():
    async with _painting(display.latest) as painter:
      with painter.watching():
        assert await painter.wait(1, 5) is None
      assert painter.is_over and "cannot paint" in caplog.text

  asyncio.run(look())


def test_large_frames_are_painted_small():
  large = live_run.record(3, 901, 1603)
  whole = painter_lib.paint(large, live_run.NAMES)
  assert whole[:3] == b"\xff\xd8\xff" and len(whole) < 300_000
  shrunk = painter_lib._shrink(large)
  assert shrunk.frame.shape == (301, 535, 3)
  assert shrunk.classes.shape == shrunk.reference.shape == (301, 535)
  assert shrunk.classes[200, 200] == large.classes[600, 600]


def _scrape(text):
  """Values by name and label, as another program reads them."""
  text = text.decode()
  assert text.endswith("\n") and "\n\n" not in text
  families = list(parser.text_string_to_metric_families(text))
  assert len({family.name for family in families}) == len(families)
  assert all(family.documentation for family in families)
  return {
    (sample.name, sample.labels.get("stage")): (sample.value, family.type)
    for family in families
    for sample in family.samples
  }


def test_prometheus_text_by_its_own_parser():
  seconds = {"predict": 1.5, 'odd "stage"\\\n': 1e-7}
  progress = live_run.progress(42, **seconds)
  counts = Counts("running", progress, 12.5)
  scraped = _scrape(metrics.render(counts))
  stages = {k[1]: v for k, v in scraped.items() if k[1] is not None}
  assert stages == {name: (s, "counter") for name, s in seconds.items()}
  kinds = {
    "counter": {
      **{"frames": 40, "key_frames": 6, "updates": 84},
      **{"teacher_failures": 1, "frames_skipped": 2},
    },
    "gauge": {"miou": 0.625, "stride": 16, "fps": 12.5, "running": 1},
  }
  assert {k[0]: v for k, v in scraped.items() if k[1] is None} == {
    f"ojd_{name}" + "_total" * (kind == "counter"): (value, kind)
    for kind, values in kinds.items()
    for name, value in values.items()
  }
  # Before the first frame and after the last.
  scraped = _scrape(metrics.render(LiveDisplay().counts()))
  assert scraped["ojd_frames_total", None] == (0, "counter")
  assert ("ojd_miou", None) not in scraped
  progress = live_run.progress(9)._replace(miou=float("nan"))
  ended = Counts("finished", progress, 0.0)
  scraped = _scrape(metrics.render(ended))
  assert np.isnan(scraped["ojd_miou", None][0])
  assert scraped["ojd_running", None] == (0, "gauge")


def test_progress_has_what_is_scraped():
  stats = stats_lib.RunStats.empty(2)
  stats.num_skipped, stats.num_teacher_failures = 3, 4
  stages = stats_lib.Stages()
  stages.add("learn", 0.5)
  progress = stats.progress(stages, None)
  stages.add("learn", 0.5)
  # A later stage does not change what was reported.
  assert progress.seconds == {"learn": 0.5}
  assert (progress.num_skipped, progress.num_teacher_failures) == (3, 4)

"""Tests of the report: one sound page, whatever a run left."""

import base64
import html
import html.parser
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from ojd.formats import run_files
from ojd.report import charts, pages, run_page, run_results, run_tables
from tests import workdirs
from tests.reference.refusals import refused

EVIL = '<script>alert("1 & 2")</script>'
_VOID = ("meta", "img", "br", "link", "input")


class _Reader(html.parser.HTMLParser):
  """Collects tags, addresses, words and scripts; notes tags of no match."""

  def __init__(self):
    super().__init__()
    self.open, self.tags, self.addresses, self.words = [], [], [], []
    self.ids, self.problems, self.scripts = [], [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.ids += [value for name, value in attrs if name == "id"]
    names = ("src", "href", "xlink:href", "poster", "srcset")
    self.addresses += [value for name, value in attrs if name in names]
    if tag not in _VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    if not self.open or self.open.pop() != tag:
      self.problems.append(tag)

  def handle_data(self, data):
    if self.open and self.open[-1] == "script":
      self.scripts.append(data)
    elif self.open and self.open[-1] != "style":
      self.words.append(data)

  @property
  def text(self):
    return " ".join(" ".join(self.words).split())


def _report(workdir):
  """The page of a workdir, read, after what every page must fulfil."""
  page = run_page.write(workdir).read_text("utf-8")
  reader = _Reader()
  reader.feed(page)
  reader.close()
  assert not reader.problems and not reader.open
  assert len(reader.ids) == len(set(reader.ids))
  for address in reader.addresses:
    assert address.startswith(("data:", "#")) or address == "../overlay.mp4"
  assert not re.search(r"url\((?!#)|@import", page)
  # Data, where there is a chart, and the one script that we wrote.
  *content, script = reader.scripts
  assert script.strip() == pages.asset("report.js").strip()
  assert page.count("<script") == len(reader.scripts)
  assert len(content) == ("svg" in reader.tags)
  reader.data = json.loads(content[0]) if content else None
  assert "nan" not in reader.text.lower().split()
  reader.page = page
  return reader


def _rows(num_frames=100, every=10):
  rows = []
  for t in range(num_frames):
    row = {"t": t, "is_key": False, "num_updates": 0, "stride": every}
    row["eval_miou"] = 0.5 + 0.4 * math.sin(t / 9)
    if t % every == 0:
      row |= {"is_key": True, "num_updates": 3, "miou_before": 0.4}
      row |= {"miou_after": 0.8, "ms_teacher": 300.0, "ms_learn": 90.0}
    else:
      row["ms_predict"] = 20.0
    rows.append(row)
  return rows


CONFIG = workdirs.config(a_thresh=0.8, classes=EVIL) | {
  **{"versions": {"jax": "0.10.0", "torch": None}, "devices": ["cpu:0"]},
  **{"stream": {"kind": EVIL}, "class_names": ["background", "car", EVIL]},
}
NUMBERS = {
  "num_updates": 30,
  "miou": {
    **{"mean": 0.625, "reference": "truth"},
    "per_class": {"car": 0.8125, EVIL: None},
  },
  "seconds": {"compile": 12.0, "predict": 1.8, "teacher": 3.0, "learn": 1.2},
  "peak_memory_mb": 512.0,
}


def _write(path, rows=None, is_bare=False, **numbers):
  """A workdir; a bare one has its lines alone."""
  rows = _rows() if rows is None else rows
  summary = workdirs.summary(_rows(), **NUMBERS | numbers)
  files = {"config.json": CONFIG, "summary.json": summary}
  for name, content in files.items() if not is_bare else ():
    (path / name).write_text(json.dumps(content))
  lines = [json.dumps(row) + "\n" for row in rows]
  (path / "metrics.jsonl").write_text("".join(lines))
  return path


def _num_markers(page, prefix="wide"):
  group = page[page.index(f'id="{prefix}-{charts.KEY_MARKERS}"') :]
  return group[: group.index("</g>\n   </g>")].count("<use ")


def test_page_says_the_numbers(tmp_path):
  reader = _report(_write(tmp_path))
  text, page = reader.text, reader.page
  for words in (
    *("mIoU of 0.625 against the truth", "10 of 100 frames", "10.0%"),
    *("30 updates", "3.0 per key frame", "7.5 times as fast", "6.5\u00d7"),
    *("512 MB", "0.812", "not seen"),
    "300 N / (7 (N - n) + 300 n + 30 u)",
    # Of the 6 seconds of the method, without the 12 of compiling.
    "student, other frames 1.80 30.0% 20.0",
    "teacher, key frames 3.00 50.0% 300.0",
    # By the paper's prices.
    "teacher calls 10 \u00d7 300 ms 3.0 3.00",
    "updates 30 \u00d7 30 ms 0.9 1.20",
    "other frames 90 \u00d7 7 ms 0.6 1.80",
    "together 4.5",
    "teacher on every frame 100 \u00d7 300 ms 30.0",
    CONFIG["command"],
  ):
    assert words in text
  assert "stopped before the end" not in text
  assert re.search(r"compile 12\.00 (?!\d)", text)
  assert text.index("compile 12.00") > text.index("training, key frames")
  # Text from files is escaped.
  assert EVIL not in page
  assert "&lt;script&gt;alert(&#34;1 &amp; 2&#34;)&lt;/script&gt;" in page
  assert "<span>&amp;&amp;</span> <span>x</span></pre>" in page
  # Colours come from the page.
  chart = page[page.index("<svg") : page.rindex("</svg>")]
  for name in ("currentColor", "var(--accent)", "var(--key)", "var(--stride)"):
    assert name in chart
  assert "#0101" not in chart and "#0102" not in chart
  assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize(
  "tail", (b"", b'{"t": 100, "is_key": true, "num_up', b'{"t": "\xc3')
)
def test_chart_marks_every_key_frame_and_drops_a_torn_line(tmp_path, tail):
  path = _write(tmp_path) / "metrics.jsonl"
  path.write_bytes(path.read_bytes() + tail)
  assert len(run_files.read_metrics(path)) == 100
  page = _report(tmp_path).page
  assert _num_markers(page) == _num_markers(page, "narrow") == 10


@pytest.mark.parametrize(
  "numbers,there,absent",
  (
    # The teacher is free.
    ({"speedup_measured": None}, ["speed-up of 6.5\u00d7"], "as fast as"),
    (
      {
        **{"finished": False, "num_skipped": 4, "teacher_failures": 2},
        **{"num_rolled_back": 5, "interrupted": 1},
      },
      [
        *("stopped before the end", "skipped 4", "failures 2", "undone 5"),
        "interruptions 1",
      ],
      "no key frames",
    ),
    (
      {
        "miou": {"mean": None, "per_class": {"car": None}},
        **{"eval_frames": 0, "seconds": {}},
      },
      ["compared with nothing", "not seen"],
      "0.625",
    ),
  ),
)
def test_problems_are_shown(tmp_path, numbers, there, absent):
  text = _report(_write(tmp_path, **numbers)).text
  assert all(words in text for words in there) and absent not in text


@pytest.mark.parametrize("num_frames", (0, 1, 2, 37))
@pytest.mark.parametrize("kind", ("plain", "no_keys", "no_eval", "bare"))
def test_early_ends_give_a_sound_page(tmp_path, num_frames, kind):
  rows = _rows(num_frames)
  if kind == "no_keys":
    rows = [row | {"is_key": False, "stride": 0} for row in rows]
  if kind in ("no_eval", "bare"):
    rows = [row | {"eval_miou": math.nan} for row in rows]
  if kind == "bare":
    rows = [{"t": row["t"], "is_key": row["is_key"]} for row in rows]
  reader = _report(_write(tmp_path, rows, is_bare=True))
  text = reader.text
  if not rows:  # as a folder without any file
    (tmp_path / "metrics.jsonl").unlink()
    assert "No frame was processed" in _report(tmp_path).text
  assert ("No frame was processed" in text) == (num_frames == 0)
  assert "stopped before the end" in text
  assert ("no key frames" in text) == (kind == "no_keys" and num_frames > 0)
  assert ("svg" in reader.tags) == (num_frames > 0)


def test_sample_frames_are_inside_in_order(tmp_path):
  folder = tmp_path / "report" / "frames"
  folder.mkdir(parents=True)
  for t in (90, 0, 15):
    image = Image.new("RGB", (3000 if t == 90 else 90, 60), (t, 0, 0))
    image.save(folder / f"{t:06d}.jpg")
  (folder / "000016.jpg").write_bytes(b"torn")
  reader = _report(_write(tmp_path))
  widths = []
  for address in reader.addresses:
    kind, _, data = address.partition(";base64,")
    if kind == "data:image/jpeg":
      widths.append(Image.open(io.BytesIO(base64.b64decode(data))).width)
  assert widths == [90, 90, 1600]
  captions = re.findall(r"frame (\d+) ?,", reader.text)
  assert captions == ["0", "15", "90"]
  assert re.search(r"frame 90, key frame , 3 updates", reader.text)
  # The video is named where there is one.
  assert "video" not in reader.tags
  (tmp_path / "overlay.mp4").write_bytes(b"")
  reader = _report(tmp_path)
  assert "video" in reader.tags and "../overlay.mp4" in reader.addresses


def test_a_long_run_stays_small(tmp_path):
  page = _report(_write(tmp_path, _rows(20_000, every=8))).page
  assert len(page) < 600_000
  assert 100 < _num_markers(page) <= 420


def test_smoothing_keeps_constants_and_averages_the_rest():
  np.testing.assert_allclose(charts.smooth(np.full(99, 0.3))[0], 0.3)
  values = np.zeros(80)
  values[40] = 1.0
  means, window = charts.smooth(values)
  assert window == 3
  np.testing.assert_allclose(means[38:43], [0, 1 / 3, 1 / 3, 1 / 3, 0])


def test_thinning_keeps_the_greatest_of_each_column():
  t = np.array([0.0, 1.0, 2.0, 50.0, 51.0, 99.0])
  values = np.array([1.0, 8.0, 2.0, 0.0, 3.0, 5.0])
  np.testing.assert_array_equal(charts._thin(t, values, 2), [1, 5])


def test_the_page_holds_the_numbers_of_every_frame(tmp_path):
  rows = _rows(100)
  rows[7]["eval_miou"] = None
  rows[20] |= {"key_t": 17, "delay": 3}
  del rows[40]  # it could not be read, and is not in the video
  found = _report(_write(tmp_path, rows)).data
  assert found["fps"] is None  # there is no video
  assert found["t"] == [t for t in range(100) if t != 40]
  assert found["place"] == list(range(99))
  assert found["stride"] == [10] * 99
  for i, row in enumerate(rows):
    value = row["eval_miou"]
    assert found["miou"][i] == (None if value is None else round(value, 3))
  keys = [t for t in range(0, 100, 10) if t != 40]
  assert [found["t"][i] for i in found["key"]] == keys
  assert found["before"] == [0.4] * 9 and found["after"] == [0.8] * 9
  assert found["updates"] == [3] * 9
  assert found["learned"] == [17 if t == 20 else None for t in keys]


@pytest.mark.parametrize(
  "num_frames,every,num_keys", ((20_000, 8, 2500), (30_000, 3, 5000))
)
def test_of_a_long_run_key_frames_are_kept_first(num_frames, every, num_keys):
  found = run_page.frame_data(_rows(num_frames, every), 25.0)
  assert len(found["t"]) == run_page.MAX_ROWS
  assert found["t"] == sorted(found["t"]) == found["place"]
  assert (found["t"][0], found["t"][-1] > num_frames - 20) == (0, True)
  assert len(found["key"]) == num_keys
  assert all(found["t"][i] % every == 0 for i in found["key"])
  gaps = np.diff(found["t"])
  assert gaps.max() <= 3 * num_frames / run_page.MAX_ROWS


def test_unsorted_lines_are_put_in_order():
  rows = [{"t": 3}, {"t": 1, "is_key": True}, {"t": 3, "stride": 8}]
  found = run_page.frame_data(rows, None)
  assert found["t"] == [1, 3] and found["place"] == [1, 2]
  assert found["stride"] == [None, 8] and found["key"] == [0]


def test_no_text_ends_the_element_of_the_data(tmp_path, monkeypatch):
  evil = {"</script><script>alert(1)//": "<!-- \u2028 </SCRIPT & '"}
  monkeypatch.setattr(run_page, "frame_data", lambda rows, fps: evil)
  assert _report(_write(tmp_path)).data == evil
  monkeypatch.setattr(run_page, "frame_data", lambda rows, fps: {"x": math.nan})
  with pytest.raises(ValueError):
    run_page.write(tmp_path)


def test_charts_say_where_their_frames_are(tmp_path):
  page = _report(_write(tmp_path)).page
  words, box = re.search(
    r'<svg data-plot="([^"]*)"[^>]* viewBox="([^"]*)"', page
  ).groups()
  wide = json.loads(html.unescape(words))
  _, _, width, height = map(float, box.split())
  group = page[page.index(f'id="wide-{charts.KEY_MARKERS}"') :]
  found = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', group)[:10]
  (left, right), (first, last) = wide["x"], wide["xlim"]
  (low, high), (bottom, top) = wide["ylim"], wide["y"]
  x, y = np.array(found, float).T
  share = (np.arange(0, 100, 10) - first) / (last - first)
  expected = (left + share * (right - left)) * width
  np.testing.assert_allclose(x, expected, rtol=0, atol=0.01)
  # The chart draws key frames at -0.045.
  expected = bottom + (-0.045 - low) / (high - low) * (top - bottom)
  np.testing.assert_allclose(y, expected * height, rtol=0, atol=0.01)
  assert top < bottom < wide["bottom"] < 1


def test_costs_of_another_method_are_its_own(tmp_path):
  prices = {"teacher": 300, "predict": 12.5, "update": 0, "training": 30_000}
  odd = {"predict": 12.5, "update": EVIL, "training": -1, "teacher": None}
  for paper_ms, total in ((prices, "304.1"), (odd, "5.0")):
    text = _report(_write(tmp_path, paper_ms=paper_ms)).text
    # 10 x (300 + 30,000) and 90 x 12.5 ms; of the second 30 updates.
    assert "other frames 90 \u00d7 12.5 ms 1.1 1.80" in text
    words = "training rounds 10 \u00d7 30,000 ms 300.0"
    assert (words in text) == (paper_ms is prices)
    assert f"together {total}" in text


def test_sizes_of_folders_are_sums(tmp_path):
  folder = tmp_path / "checkpoints" / "16" / "state"
  folder.mkdir(parents=True)
  (folder / "a").write_bytes(bytes(1500))
  (folder.parent / "b").write_bytes(bytes(500))
  assert run_tables.size_of(tmp_path / "checkpoints") == 2000
  assert run_tables.size_of(tmp_path / "trajectory") == 0
  text = _report(_write(tmp_path)).text
  assert re.search(r"checkpoints to go on from 2\.0 kB 20 B", text)
  assert "trajectory the teacher" not in text


def test_key_frames_are_shown_with_their_gain(tmp_path):
  rows = _rows()
  rows[20] |= {"miou_before": 0.1, "key_t": 12, "delay": 8}
  folder = tmp_path / "report" / "keys"
  folder.mkdir(parents=True)
  for t in (20, 0, 30, 33):  # 33 is no key frame
    Image.new("RGB", (90, 60)).save(folder / f"{t:06d}.jpg")
  (folder / "000040.jpg").write_bytes(b"torn")
  text = _report(_write(tmp_path, rows)).text
  assert re.search(r"frame 0 , 0\.400 \u2192 0\.800, 3 updates frame 12 ", text)
  assert re.search(
    r"frame 12 , 0\.100 \u2192 0\.800, 3 updates, learned at frame 20, "
    r"the greatest gain of these frame 30 ",
    text,
  )
  assert text.count("greatest gain") == 1
  assert "frame 33" not in text and "frame 40 ," not in text


@pytest.mark.parametrize(
  "name,content,words",
  (
    ("config.json", "{", "its config.json is damaged"),
    ("config.json", "[" * 100_000, "its config.json is damaged"),
    ("config.json", '{"flags": []}', "its config.json is damaged"),
    ("config.json", None, "no workdir"),
    ("metrics.jsonl", None, "metrics.jsonl is missing"),
    ("metrics.jsonl", "\x00\x01\n[]\n{}", "metrics.jsonl is damaged"),
    ("summary.json", "[1]", "its summary.json is damaged"),
  ),
)
def test_damaged_folders_are_named(tmp_path, name, content, words):
  _write(tmp_path)
  run_results.check(tmp_path)
  (tmp_path / name).unlink()
  if content is not None:
    (tmp_path / name).write_text(content)
  with refused(words):
    run_results.check(tmp_path)


def test_a_run_without_a_summary_yet_is_sound(tmp_path):
  (_write(tmp_path) / "summary.json").unlink()
  run_results.check(tmp_path)
  (tmp_path / "metrics.jsonl").write_text("")
  run_results.check(tmp_path)


def test_what_is_no_number_or_beyond_all_bounds_is_left_out(tmp_path):
  huge = "9" * 400
  lines = (
    f'{{"t": 0, "stride": {huge}, "eval_miou": 1e999}}\n'
    f'{{"t": {huge}}}\n{{"t": -1}}\n{{"t": 1.5}}\n{{"t": true}}\n'
    '{"t": 1, "stride": true, "eval_miou": "0.5"}\n'
  )
  _write(tmp_path)
  (tmp_path / "metrics.jsonl").write_text(lines)
  (tmp_path / "summary.json").write_text(f'{{"num_frames": {huge}}}')
  found = _report(tmp_path).data
  assert found["t"] == [0, 1]
  assert found["stride"] == found["miou"] == [None, None]

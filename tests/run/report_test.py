"""Tests of the report: one sound page, whatever a run left."""

import base64
import html.parser
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from ojd.run import report, report_chart

EVIL = '<script>alert("1 & 2")</script>'
_VOID = ("meta", "img", "br", "link", "input")


class _Reader(html.parser.HTMLParser):
  """Collects tags, addresses and words; notes tags that do not match."""

  def __init__(self):
    super().__init__()
    self.open, self.tags, self.addresses, self.words = [], [], [], []
    self.ids, self.problems = [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self._note(attrs)
    if tag not in _VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self._note(attrs)

  def _note(self, attrs):
    self.ids += [value for name, value in attrs if name == "id"]
    names = ("src", "href", "xlink:href", "poster", "srcset")
    self.addresses += [value for name, value in attrs if name in names]

  def handle_endtag(self, tag):
    if not self.open or self.open.pop() != tag:
      self.problems.append(tag)

  def handle_data(self, data):
    if self.open and self.open[-1] != "style":
      self.words.append(data)

  @property
  def text(self):
    return " ".join(" ".join(self.words).split())


def _read(path):
  """The page, read, after what every page must fulfil."""
  page = path.read_text("utf-8")
  reader = _Reader()
  reader.feed(page)
  reader.close()
  assert not reader.problems and not reader.open
  assert len(reader.ids) == len(set(reader.ids))
  for address in reader.addresses:
    assert address.startswith(("data:", "#")) or address == "../overlay.mp4"
  assert not re.search(r"url\((?!#)|@import|<script", page)
  assert "nan" not in reader.text.lower().split()
  return reader


def _rows(num_frames=100, every=10):
  rows = []
  for t in range(num_frames):
    row = {"t": t, "is_key": False, "num_updates": 0, "stride": every}
    row |= {"eval_miou": 0.5 + 0.4 * math.sin(t / 9), "ms_predict": 20.0}
    if t % every == 0:
      row |= {"is_key": True, "num_updates": 3, "miou_before": 0.4}
      row |= {"miou_after": 0.8, "loss": 0.1, "grad_norm": 1.0}
      row |= {"ms_teacher": 300.0, "ms_learn": 90.0}
      del row["ms_predict"]
    rows.append(row)
  return rows


def _config():
  return {
    "flags": {"stream": "folder:here", "a_thresh": 0.8, "classes": EVIL},
    "command": "python -m experiments.online_distill --stream='a b' && x",
    "versions": {"jax": "0.10.0", "torch": None},
    "devices": ["cpu:0"],
    "stream": {"kind": EVIL},
    "class_names": ["background", "car", EVIL],
  }


def _summary():
  per_class = {"car": 0.8125, EVIL: None}
  return {
    "finished": True,
    "num_frames": 100,
    "num_key_frames": 10,
    "key_frame_fraction": 0.1,
    "num_updates": 30,
    "num_rolled_back": 0,
    "num_skipped": 0,
    "teacher_failures": 0,
    "miou": {"mean": 0.625, "per_class": per_class, "reference": "truth"},
    "eval_frames": 100,
    "fps": 25.0,
    "speedup_measured": 7.5,
    "speedup_paper_model": 6.6225,
    "seconds": {"compile": 12.0, "predict": 1.8, "teacher": 3.0, "learn": 1.2},
    "peak_memory_mb": 512.0,
    "interrupted": 0,
    "resumed": 0,
  }


def _write(workdir, rows=None, summary=None, config=None):
  """A workdir; an empty dict leaves a file out."""
  files = {"config.json": config, "summary.json": summary}
  makers = {"config.json": _config, "summary.json": _summary}
  for name, content in files.items():
    content = makers[name]() if content is None else content
    if content:
      (workdir / name).write_text(json.dumps(content))
  lines = [json.dumps(row) for row in (_rows() if rows is None else rows)]
  (workdir / "metrics.jsonl").write_text("".join(x + "\n" for x in lines))
  return workdir


def _num_markers(page, prefix="wide"):
  group = page[page.index(f'id="{prefix}-{report_chart.KEY_MARKERS}"') :]
  return group[: group.index("</g>\n   </g>")].count("<use ")


def test_page_says_the_numbers(tmp_path):
  path = report.write_report(_write(tmp_path))
  assert path == tmp_path / "report" / "index.html"
  text = _read(path).text
  for words in (
    "mIoU of 0.625 against the truth",
    "10 of 100 frames",
    "10.0%",
    "30 updates",
    "3.0 per key frame",
    "7.5 times as fast",
    "6.6\u00d7",
    "512 MB",
    "0.812",
    "not seen",
    "300 N / (7 (N - n) + 300 n + 30 u)",
  ):
    assert words in text
  assert "stopped before the end" not in text


def test_text_from_files_is_escaped(tmp_path):
  path = report.write_report(_write(tmp_path))
  reader = _read(path)
  assert "script" not in reader.tags
  assert _config()["command"] in reader.text
  page = path.read_text("utf-8")
  assert "&lt;script&gt;alert(&quot;1 &amp; 2&quot;)&lt;/script&gt;" in page
  assert "<span>&amp;&amp;</span> <span>x</span></pre>" in page


def test_chart_marks_every_key_frame(tmp_path):
  page = report.write_report(_write(tmp_path)).read_text("utf-8")
  assert _num_markers(page) == _num_markers(page, "narrow") == 10


def test_a_torn_last_line_is_dropped(tmp_path):
  path = _write(tmp_path) / "metrics.jsonl"
  with path.open("a") as file:
    file.write('{"t": 100, "is_key": true, "num_up')
  assert len(report.read_metrics(path)) == 100
  page = report.write_report(tmp_path)
  _read(page)
  assert _num_markers(page.read_text("utf-8")) == 10


def test_a_torn_byte_is_no_problem(tmp_path):
  path = _write(tmp_path) / "metrics.jsonl"
  path.write_bytes(path.read_bytes() + b'{"t": "\xc3')
  assert len(report.read_metrics(path)) == 100


def test_stages_have_shares_and_compiling_stands_apart(tmp_path):
  text = _read(report.write_report(_write(tmp_path))).text
  # Of the 6 seconds of the method, without the 12 of compiling.
  assert "student, other frames 1.80 30.0% 20.0" in text
  assert "teacher, key frames 3.00 50.0% 300.0" in text
  assert re.search(r"compile 12\.00 (?!\d)", text)
  assert text.index("compile 12.00") > text.index("training, key frames")


def test_a_free_teacher_has_no_measured_speedup(tmp_path):
  summary = _summary() | {"speedup_measured": None}
  text = _read(report.write_report(_write(tmp_path, summary=summary))).text
  assert "as fast as" not in text
  assert "speed-up of 6.6\u00d7" in text


def test_problems_are_shown(tmp_path):
  summary = _summary() | {"finished": False, "num_skipped": 4}
  summary |= {"teacher_failures": 2, "num_rolled_back": 5, "interrupted": 1}
  text = _read(report.write_report(_write(tmp_path, summary=summary))).text
  assert "stopped before the end" in text
  for words in ("skipped 4", "failures 2", "undone 5", "interruptions 1"):
    assert words in text


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
  path = report.write_report(_write(tmp_path, rows, {}, {}))
  text = _read(path).text
  assert ("No frame was processed" in text) == (num_frames == 0)
  assert "stopped before the end" in text
  assert ("no key frames" in text) == (kind == "no_keys" and num_frames > 0)
  assert ("svg" in _read(path).tags) == (num_frames > 0)


def test_all_null_accuracy_gives_a_sound_page(tmp_path):
  miou = {"mean": None, "per_class": {"car": None}, "reference": "teacher"}
  summary = _summary() | {"miou": miou, "eval_frames": 0, "seconds": {}}
  text = _read(report.write_report(_write(tmp_path, summary=summary))).text
  assert "compared with nothing" in text
  assert "not seen" in text


def test_an_empty_workdir_gives_a_page(tmp_path):
  assert "No frame" in _read(report.write_report(tmp_path)).text


def test_sample_frames_are_inside_in_order(tmp_path):
  folder = tmp_path / "report" / "frames"
  folder.mkdir(parents=True)
  for t in (90, 0, 15):
    image = Image.new("RGB", (3000 if t == 90 else 90, 60), (t, 0, 0))
    image.save(folder / f"{t:06d}.jpg")
  (folder / "000016.jpg").write_bytes(b"torn")
  reader = _read(report.write_report(_write(tmp_path)))
  images = [x for x in reader.addresses if x.startswith("data:image/jpeg")]
  widths = []
  for address in images:
    data = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
    widths.append(Image.open(io.BytesIO(data)).width)
  assert widths == [90, 90, 1600]
  captions = re.findall(r"frame (\d+) ?,", reader.text)
  assert captions == ["0", "15", "90"]
  assert re.search(r"frame 90, key frame , 3 updates", reader.text)


def test_the_video_is_named_where_there_is_one(tmp_path):
  _write(tmp_path)
  assert "video" not in _read(report.write_report(tmp_path)).tags
  (tmp_path / "overlay.mp4").write_bytes(b"")
  reader = _read(report.write_report(tmp_path))
  assert "video" in reader.tags and "../overlay.mp4" in reader.addresses


def test_a_long_run_stays_small(tmp_path):
  path = report.write_report(_write(tmp_path, _rows(20_000, every=8)))
  page = path.read_text("utf-8")
  assert len(page) < 600_000
  assert 100 < _num_markers(page) <= 420
  _read(path)


def test_colours_come_from_the_page(tmp_path):
  page = report.write_report(_write(tmp_path)).read_text("utf-8")
  chart = page[page.index("<svg") : page.rindex("</svg>")]
  for name in ("currentColor", "var(--accent)", "var(--key)", "var(--stride)"):
    assert name in chart
  assert "#0101" not in chart
  assert "prefers-color-scheme: dark" in page


def test_series_are_the_columns_of_the_rows():
  series = report_chart.read_series(
    [
      {"t": 0, "is_key": True, "stride": 8, "num_updates": 2, "miou_after": 1},
      {"t": 1, "is_key": False, "stride": 0, "eval_miou": 0.5},
      {"t": 2, "eval_miou": "0.5", "stride": True},
    ]
  )
  nan = math.nan
  for name, expected in (
    ("t", [0, 1, 2]),
    ("stride", [8, nan, nan]),
    ("eval_t", [1]),
    ("eval_miou", [0.5]),
    ("key_t", [0]),
    ("before", [nan]),
    ("after", [1]),
    ("updates", [2]),
  ):
    np.testing.assert_array_equal(getattr(series, name), expected, name)


def test_smoothing_keeps_constants_and_averages_the_rest():
  np.testing.assert_allclose(report_chart.smooth(np.full(99, 0.3))[0], 0.3)
  values = np.zeros(80)
  values[40] = 1.0
  means, window = report_chart.smooth(values)
  assert window == 3
  np.testing.assert_allclose(means[38:43], [0, 1 / 3, 1 / 3, 1 / 3, 0])


def test_thinning_keeps_the_greatest_of_each_column():
  t = np.array([0.0, 1.0, 2.0, 50.0, 51.0, 99.0])
  values = np.array([1.0, 8.0, 2.0, 0.0, 3.0, 5.0])
  kept = report_chart._thin(t, values, 2)
  np.testing.assert_array_equal(kept, [1, 5])
  np.testing.assert_array_equal(report_chart._thin(t, values, 6), np.arange(6))

"""The page about several runs: its numbers, its links, what is damaged."""

import html
import math
import re
import urllib.parse
from typing import NamedTuple

import numpy as np
import pytest

from ojd.errors import UserError
from ojd.report import charts, runs_page
from tests import workdirs


class _Table(NamedTuple):
  """The cells of the first table as text, and every address and value."""

  rows: list[list[str]]
  addresses: list[str]
  values: list[str]


def _read(page):
  (table, *_) = re.findall(r"<table.*?</table>", page, re.DOTALL)
  rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
  cells = [re.findall(r"<t[dh].*?</t[dh]>", x, re.DOTALL) for x in rows]
  plain = lambda cell: html.unescape(re.sub("<[^>]*>", "", cell))
  of = lambda name: re.findall(rf' (?:{name})="([^"]*)"', page)
  addresses = [html.unescape(x) for x in of("href|src")]
  rows = [[plain(cell) for cell in row] for row in cells]
  return _Table(rows, addresses, of("data-value"))


def _write(paths, target):
  runs_page.write(runs_page.rewrite(paths), target)
  return target.read_text("utf-8")


def test_a_line_a_run_with_the_flags_in_which_they_differ(tmp_path):
  flags = {"a_thresh": 0.8, "seed": 0, "classes": "", "workdir": "x"}
  numbers = {"speedup_measured": None, "finished": False, "miou": {}}
  paths = [
    workdirs.make(tmp_path / name, None, numbers, **flags | changed)
    for name, numbers, changed in (
      ("a", {}, {}),
      ("b", {}, {"a_thresh": 0.9, "classes": "<b>", "workdir": "y"}),
      ("c", numbers, {}),
    )
  ]
  page = _write(paths, tmp_path / "index.html")
  head, *rows = _read(page).rows
  assert [x.strip() for x in head] == [
    *("run", "stream", "system", "a_thresh", "classes", "mIoU", "over time"),
    *("frames", "key frames", "updates", "frames/s", "speed-up, measured"),
    *("speed-up, paper", "state"),
  ]
  common = ["60", "10.0%", "15", "25.0"]
  like = "folder:here", "jit"
  end = "7.5\u00d7", "6.5\u00d7", "finished"
  assert rows == [
    ["a", *like, "0.8", "", "0.625", "", *common, *end],
    ["b", *like, "0.9", "<b>", "0.625", "", *common, *end],
    ["c", *like, "0.8", "", "\u2013", "", *common, "\u2013", end[1], "stopped"],
  ]
  assert "<b>" not in page.replace("<body", "")
  assert page.count("<polyline") == 3


def test_links_lead_to_the_reports_from_wherever_the_page_is(tmp_path):
  names = ("a b", "c#?%20", 'd"<i>')
  paths = [workdirs.make(tmp_path / "runs" / name) for name in names]
  target = tmp_path / "pages" / "all.html"
  found = _read(_write(paths, target)).addresses
  assert len(found) == 3
  for address, path in zip(found, paths, strict=True):
    reached = target.parent / urllib.parse.unquote(address)
    assert reached.resolve() == path / "report" / "index.html"
    assert reached.is_file()
    assert urllib.parse.urlsplit(address).path == address


def test_numbers_are_sorted_by_their_exact_values(tmp_path):
  numbers = {"miou": {"mean": 0.62549}, "fps": math.inf, "num_updates": "<i>"}
  path = workdirs.make(tmp_path / "a", numbers=numbers)
  found = _read(_write([path], tmp_path / "index.html"))
  assert "0.62549" in found.values
  assert all(math.isfinite(float(value)) for value in found.values)


def test_folders_are_found_inside_in_order(tmp_path):
  for name in ("b", "a"):
    workdirs.make(tmp_path / name)
  (tmp_path / "notes").mkdir()
  (tmp_path / "c.txt").touch()
  assert runs_page.find(tmp_path) == [tmp_path / "a", tmp_path / "b"]
  assert runs_page.find(tmp_path / "a") == [tmp_path / "a"]
  for name, words in (
    *(("notes", "no workdir"), ("nowhere", "no such folder")),
    ("c.txt", "no such folder"),
  ):
    with pytest.raises(UserError, match=words):
      runs_page.find(tmp_path / name)


def test_only_a_page_of_its_own_is_replaced(tmp_path):
  path, target = workdirs.make(tmp_path / "a"), tmp_path / "index.html"
  _write([path], target)
  _write([path], target)
  target.write_text("<h1>my own page</h1>")
  with pytest.raises(UserError, match="no index of runs"):
    _write([path], target)
  assert target.read_text() == "<h1>my own page</h1>"
  with pytest.raises(UserError, match="cannot be written"):
    _write([path], tmp_path / "a" / "config.json" / "x.html")


def test_the_chart_has_a_curve_a_run_and_twelve_at_most(tmp_path):
  paths = [
    workdirs.make(tmp_path / f"{i:02d}", workdirs.rows(20 + i))
    for i in range(14)
  ]
  page = _write(paths, tmp_path / "index.html")
  assert page.count("<svg ") == 2 + 14  # wide, narrow, and one a line
  wide = page[page.index('<div class="wide"') : page.index('class="narrow"')]
  for i in range(14):
    drawn = len(re.findall(rf"stroke: var\(--run-{i}\)", wide))
    assert drawn == (1 if i < 12 else 0)
    assert len(re.findall(rf"--run-{i}: #", page)) == (2 if i < 12 else 0)
  assert page.count("<li>") == 12
  assert "#0103" not in page


def test_curves_are_the_smoothed_values():
  rows = workdirs.rows(2000)
  series = charts.read_series(rows)
  curve = charts.curve(series)
  assert len(curve.t) == 400 and (curve.t[0], curve.t[-1]) == (0, 1999)
  mious = np.array([row["eval_miou"] for row in rows])
  for i in (100, 200):
    t = int(curve.t[i])  # the mean of a fortieth, an odd number
    assert curve.miou[i] == pytest.approx(mious[t - 25 : t + 26].mean())
  # A spark rises where accuracy does.
  curve = charts.Curve(np.array([0.0, 5, 10]), np.array([0.0, 0.5, 1]))
  assert charts.spark(curve) == "2.0,22.0 50.0,12.0 98.0,2.0"
  empty = charts.Curve(np.zeros(0), np.zeros(0))
  assert charts.spark(empty) == ""


def test_runs_without_an_evaluation_have_a_page(tmp_path):
  rows = [{"t": t, "is_key": False, "num_updates": 0} for t in range(3)]
  path = workdirs.make(tmp_path / "a", rows)
  page = _write([path], tmp_path / "index.html")
  assert "<svg" not in page and "1 run" in html.unescape(page)

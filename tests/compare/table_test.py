"""Tables of made-up cells, beside the paper's and beside sums by hand."""

import csv
import statistics

import pytest

from ojd import costs, schedules
from ojd.compare import chart as charts
from ojd.compare import formatting, results
from ojd.compare import page as pages
from ojd.compare import table as tables
from ojd.compare.numbers import Numbers
from ojd.compare.spec import StreamEntry, parse_systems
from ojd.compare.table import Cell

FRAMES = 30_000
SYSTEMS = parse_systems("jit:a_thresh=0.7,jit:a_thresh=0.8,jit:a_thresh=0.9")


def _cell(stream, system, miou, keys, updates=0, seed=0, **more):
  speedup = costs.paper_speedup(FRAMES, keys, updates)
  numbers = Numbers(
    **{"miou": miou, "num_frames": FRAMES, "num_key_frames": keys},
    **{"num_updates": updates, "key_frame_fraction": keys / FRAMES},
    **{"speedup_paper_model": speedup, "ms_paper_model": 300 / speedup},
    **more,
  )
  return Cell(stream, system, seed, f"cells/{seed}", numbers)


def _failed(stream, system, seed=0):
  return Cell(stream, system, seed, "cells/x", problem="ran <away>")


def _lines(table, kind=formatting.ACCURACY):
  return [" ".join(x.split()) for x in results.text(table, kind).splitlines()]


def test_a_row_of_the_papers_table_2():
  kabaddi = StreamEntry("lvs:kabaddi1", "Kabaddi (P)", "Sports (Moving)")
  # Teacher frames and updates that give the published speed-ups.
  counts = ((0.838, 471, 495), (0.845, 510, 785), (0.879, 1890, 13_000))
  cells = zip(SYSTEMS, counts, strict=True)
  table = tables.build([_cell(kabaddi, x, *count) for x, count in cells])
  row = "Kabaddi (P) 83.8 (24.8x, 1.6%) 84.5 (23.5x, 1.7%) 87.9 (7.8x, 6.3%)"
  assert row in _lines(table)
  cell = r"84.5 (23.5$\times$, 1.7\%)"
  assert cell in results.latex(table, formatting.ACCURACY)


def test_the_least_share_of_key_frames():
  backoff = schedules.exponential_backoff(8, 64, 0.8)
  state, t, keys = backoff.init(), 0, 0
  while t < FRAMES:
    state = backoff.advance(state, 1.0)  # every answer is right
    t, keys = int(backoff.next_key(state, t + 1)), keys + 1
  assert keys == 471 and f"{keys / FRAMES:.2%}" == "1.57%"


A, B, C = (
  StreamEntry("folder:a", "a", "Warm"),
  StreamEntry("folder:b", "b", "Warm"),
  StreamEntry("folder:c", "c"),
)
JIT, FIXED = parse_systems("jit,fixed")


def test_averages_are_of_streams_and_then_over_seeds():
  mious = {A: (0.5, 0.6), B: (0.7, 0.9), C: (0.9, 0.3)}
  cells = [
    _cell(stream, JIT, mious[stream][seed], 600, seed=seed)
    for seed in (0, 1)
    for stream in (A, B, C)
  ]
  table = tables.build(cells)
  (overall,) = table.overall.entries
  expected = (0.65, statistics.stdev([0.7, 0.6]), 2)
  assert overall.stats["miou"] == pytest.approx(expected)
  (warm,) = table.categories
  assert warm.title == "Warm"
  assert warm.entries[0].stats["miou"].mean == pytest.approx((0.6 + 0.75) / 2)
  found = [(s.title, [r.title for r in s.rows]) for s in table.sections]
  assert found == [("Warm", ["a", "b"]), ("", ["c"])]
  lines = _lines(table)
  assert lines[1].startswith("Overall 65.0+-7.1 (")
  # Of the sample: 0.5 and 0.6 are 0.0707 apart from their mean.
  assert next(x for x in lines if x.startswith("a ")).startswith("a 55.0+-7.1")
  assert any("over 2 seeds" in note for note in formatting.notes(cells, 1))


def test_what_failed_is_left_out_and_marked():
  done = [_cell(A, JIT, 0.5, 600), _cell(A, FIXED, 0.8, 600)]
  cells = [*done, _failed(B, JIT), _cell(B, FIXED, 0.6, 600)]
  cost = "(23.3x, 2.0%)"
  assert {
    f"Overall 50.0* {cost} 70.0 {cost}",
    *(f"b failed 60.0 {cost}", f"a 50.0 {cost} 80.0 {cost}"),
  } <= set(_lines(tables.build(cells)))
  assert formatting.failures(cells) == ["b, jit, seed 0: ran <away>"]
  assert any("left out" in note for note in formatting.notes(cells, 1))
  assert not any("left out" in x for x in formatting.notes(done, 1))


def test_nothing_measured_is_a_dash_and_no_curve():
  unmeasured = Cell(A, JIT, 0, "cells/x", Numbers(num_frames=5.0))
  table = tables.build([unmeasured, _failed(A, FIXED)])
  assert "a - (-, -) failed" in _lines(table)
  assert charts.curves(table) == []


def test_notes_tell_of_short_streams_and_of_company():
  cells = [_cell(A, JIT, 0.5, 1), _cell(B, JIT, 0.5, 2)]
  (short,) = [x for x in formatting.notes(cells, 1) if "first stride" in x]
  assert short.startswith("a has 30000 frames")
  assert any("3 runs at a time" in x for x in formatting.notes(cells, 3))


def test_csv_holds_every_number(tmp_path):
  cells = [_cell(A, JIT, 1 / 3, 600, 90), _failed(C, JIT)]
  results.write_cells(cells, tmp_path / "cells.csv")
  results.write_table(tables.build(cells), tmp_path / "table.csv")
  read = lambda name: csv.DictReader((tmp_path / name).read_text().splitlines())
  good, bad = read("cells.csv")
  assert float(good["miou"]) == pytest.approx(1 / 3)
  assert good["num_updates"] == "90" and good["speedup_measured"] == ""
  assert bad["problem"] == "ran <away>" and bad["miou"] == ""
  rows = list(read("table.csv"))
  assert [(row["level"], row["name"], row["is_partial"]) for row in rows] == [
    *(("overall", "Overall", "True"), ("category", "Warm", "False")),
    *(("stream", "a", "False"), ("stream", "c", "True")),
  ]
  assert float(rows[0]["miou"]) == pytest.approx(1 / 3)


def test_curves_join_the_settings_of_a_method(tmp_path):
  counts = ((0.8, 471), (0.7, 3000), (0.9, 1000))
  pairs = zip(SYSTEMS, counts, strict=True)
  cells = [_cell(A, system, *count) for system, count in pairs]
  curves = charts.curves(tables.build([*cells, _cell(A, FIXED, 0.6, 600)]))
  jit, fixed = curves
  assert jit.label == "jit" and fixed.label == "fixed"
  assert [p.label[-1] for p in jit.points] == ["7", "9", "8"]
  assert jit.points[0].label == "a_thresh=0.7"
  # The cost is that of the paper's prices.
  cost = (7 * (FRAMES - 471) + 300 * 471) / FRAMES
  assert jit.points[0].cost == pytest.approx(cost)
  assert jit.points[0].miou == pytest.approx(80)
  for drawn in (curves, []):
    charts.write_png(drawn, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_cost_of_several_streams_is_the_mean_of_their_frames():
  """Not what the mean of the speed-ups, 24.85 and 4.07, would cost."""
  few, many = (FRAMES // 64, FRAMES // 64), (FRAMES // 8, FRAMES)
  cells = [_cell(A, JIT, 0.5, *few), _cell(B, JIT, 0.5, *many)]
  ((point,),) = (curve.points for curve in charts.curves(tables.build(cells)))
  each = [300 / cell.numbers.speedup_paper_model for cell in cells]
  assert point.cost == pytest.approx(sum(each) / 2)
  assert point.cost > 1.5 * 300 / ((300 / each[0] + 300 / each[1]) / 2)


DAVIS = {"region": 0.71, "boundary": 0.625}
STEADY = {"consistency": 0.912, "flicker": 0.00414}
TRUTH = {"truth_consistency": 0.93, "truth_flicker": 0.003}
LINK = {"up_kbps": 1234.56, "down_kbps": 245.0, "mean_staleness": 2.25}


@pytest.mark.parametrize(
  "kind,of_a,of_b,words",
  (
    (formatting.DAVIS, DAVIS, DAVIS, ("a 71.0, 62.5",)),
    (
      *(formatting.TEMPORAL, STEADY | TRUTH, STEADY),  # b has no labels
      ("a 91.2, 0.41 (93.0, 0.30)", "b 91.2, 0.41 (-, -)"),
    ),
    (
      *(formatting.LINK, LINK | {"link_fps": 25.0}, {}),
      ("a 1,234.6, 245.0 (2.2, 25.0)",),
    ),
  ),
)
def test_what_else_is_measured_has_a_table_of_its_own(kind, of_a, of_b, words):
  plain, more = (
    tables.build([_cell(A, JIT, 0.5, 600, **a), _cell(B, JIT, 0.5, 600, **b)])
    for a, b in (({}, {}), (of_a, of_b))
  )
  assert formatting.kinds(plain) == [formatting.ACCURACY]
  assert formatting.kinds(more) == [formatting.ACCURACY, kind]
  assert set(words) <= set(_lines(more, kind))
  if kind == formatting.TEMPORAL:
    head = "consistency, flicker (of the labels), %"
    assert _lines(more, kind)[0].startswith(head)


def test_updates_have_a_table():
  (sgd,) = parse_systems("jit:update=sgd")
  more = {"bytes_per_key": 3_009_532.0, "ms_update": 12.34}
  table = tables.build([_cell(A, sgd, 0.5, 600, 90, **more)])
  lines = results.updates_text(table).splitlines()
  line = "jit update=sgd 50.0 2.0 90.0 3,009,532 12.3"
  assert line in [" ".join(x.split()) for x in lines]


def test_work_is_shown_where_it_differs(tmp_path):
  few, many = parse_systems("delta:refresh_every=3,delta:refresh_every=10")
  cells = [
    _cell(A, JIT, 0.5, 600, 90, gmac_per_frame=2.0),
    _cell(A, few, 0.4, 600, 90, gmac_per_frame=0.9876),
    _cell(A, many, 0.3, 600, 90, gmac_per_frame=0.5),
  ]
  table = tables.build(cells)
  assert formatting.kinds(table) == [formatting.ACCURACY, formatting.WORK]
  assert "a 2.000 0.988 0.500" in _lines(table, formatting.WORK)
  plain, delta = charts.curves(table, charts.WORK)
  assert plain.label == "jit" and delta.label == "delta"
  points = [(p.label, p.cost, p.miou) for p in delta.points]
  assert points == [("10", 0.5, 30.0), ("3", 0.9876, 40.0)]
  pages.write(table, None, cells, [], "", tmp_path / "index.html")
  page = (tmp_path / "index.html").read_text()
  assert page.count("<svg ") == 4 and "GMAC a frame" in page
  same = tables.build(cells[:1])
  assert formatting.kinds(same) == [formatting.ACCURACY]
  assert charts.axes_of(same) == [charts.PAPER]


def test_page_and_latex_take_any_name_and_the_page_needs_nothing_else(tmp_path):
  odd = StreamEntry("folder:x", r"<b>bold</b> 50%_of $a\c", "#1 & dry")
  cells = [_cell(odd, JIT, 0.5, 600), _failed(odd, FIXED)]
  table, target = tables.build(cells), tmp_path / "index.html"
  pages.write(table, table, cells, ["a note"], "the <cmd>", target)
  page = target.read_text()
  for words in (
    *("&lt;b&gt;bold&lt;/b&gt;", "#1 &amp; dry", "the &lt;cmd&gt;"),
    *("ran &lt;away&gt;", "50.0 (23.3\u00d7, 2.0%)", ">failed<", "a note"),
    'href="cells/0/report/index.html"',
  ):
    assert words in page
  rest = page.replace("http://www.w3.org/", "")
  assert "<b>bold" not in page and "http://" not in rest
  assert page.count("<svg ") == 2 and "var(--run-0)" in page
  words = results.latex(table, formatting.ACCURACY)
  assert r"</b> 50\%\_of \$a\textbackslash{}c & 50.0" in words
  assert r"\textit{\#1 \& dry}" in words

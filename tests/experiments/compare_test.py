"""The comparison as a person starts it."""

import csv

import psutil
import pytest

from ojd.run import workdir
from tests import binaries


@pytest.mark.slow
def test_smoke_leaves_a_table_a_picture_and_a_page(tmp_path):
  output = tmp_path / "out"
  flags = ("--smoke", "--systems=fixed:stride=4,frozen", f"--output={output}")
  first = binaries.succeed("compare", *flags)
  assert "frame 96/96  run 4/4" in first.stderr
  assert first.stdout.startswith((output / "table.txt").read_text().rstrip())
  with (output / "cells.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert [row["system"] for row in rows[:2]] == ["fixed stride=4", "frozen"]
  # Frames 0, 4, ... 20 of 24.
  assert [row["num_key_frames"] for row in rows][::2] == ["6", "6"]
  assert [row["speedup_paper_model"] for row in rows][1::2] == ["42.857"] * 2
  for row in rows:
    path = output / row["run"]
    summary = workdir.read_summary(path)
    assert float(row["miou"]) == pytest.approx(summary["miou"]["mean"])
    assert (path / "report" / "index.html").exists()
  page = (output / "index.html").read_text()
  assert all(f'href="{row["run"]}/report/index.html"' in page for row in rows)
  for name in ("accuracy.png", "table.csv", "table.tex"):
    assert (output / name).stat().st_size > 100
  # The same again is there already; something else is refused.
  times = lambda: [(output / row["run"]).stat().st_mtime_ns for row in rows]
  before = times()
  again = binaries.succeed("compare", *flags)
  assert again.stdout == first.stdout and times() == before
  other = binaries.run("compare", *flags, "--a_thresh=0.5")
  binaries.assert_refused(other, "other --a_thresh (None, now 0.5)")


def test_ctrl_c_leaves_what_was_done_and_no_process(tmp_path):
  workers = []

  def begun(process):
    workers[:] = psutil.Process(process.pid).children()
    return any(map(binaries.num_lines, tmp_path.glob("cells/*/metrics.jsonl")))

  _, errors = binaries.interrupted(
    *("compare", "--height=64", "--width=96", "--teacher=ground_truth"),
    *("--streams=synthetic:sports?num_frames=100000", "--classes=person"),
    *("--systems=frozen", f"--output={tmp_path}"),
    begun=begun,
  )
  assert errors.splitlines()[-1] == "stopped; the same command resumes"
  assert len(workers) == 1 and not workers[0].is_running()
  (cell,) = (tmp_path / "cells").iterdir()
  summary = workdir.read_summary(cell)
  assert not summary["finished"] and summary["num_frames"] > 0

"""`experiments.report` as a person starts it."""

import json

import pytest

from tests import binaries, workdirs


def _report(*words, run=binaries.succeed):
  return run("report", *map(str, words))


@pytest.fixture
def runs(tmp_path):
  return [workdirs.make(tmp_path / name, seed=i) for i, name in enumerate("ab")]


def test_one_run_has_its_page_written_again_and_several_one_about_all(
  tmp_path, runs
):
  page, target = runs[0] / "report" / "index.html", tmp_path / "all.html"
  page.parent.mkdir()
  page.write_text("old")
  result = _report(runs[0])
  assert result.stdout.split() == [str(page)]
  assert "0.625" in page.read_text()
  assert not (runs[1] / "report").exists()
  _report(*runs, runs[0], f"--out={target}")  # a flag after them
  assert target.read_text().count("/report/index.html") == 2
  assert not (tmp_path / "index.html").exists()


def test_a_folder_of_runs_has_a_page_about_all(tmp_path, runs):
  (runs[1] / "metrics.jsonl").unlink()
  result = _report(tmp_path)
  assert result.stdout.splitlines() == [
    str(runs[0] / "report" / "index.html"),
    f"left out: {runs[1]}: its metrics.jsonl is missing",
    f"all: {tmp_path / 'index.html'}",
  ]
  page = (tmp_path / "index.html").read_text()
  assert 'href="a/report/index.html"' in page
  assert "unreadable: its metrics.jsonl is missing" in page
  assert not (runs[1] / "report").exists()


def test_what_is_no_run_is_refused_in_a_line(runs):
  (runs[0] / "metrics.jsonl").unlink()
  binaries.assert_refused(_report(runs[0], run=binaries.run), "is missing")
  (runs[1] / "config.json").write_text("{")
  binaries.assert_refused(_report(runs[1], run=binaries.run), "damaged")


@pytest.mark.slow
def test_smoke_makes_two_runs_and_compares_them(tmp_path, monkeypatch):
  monkeypatch.setenv("TMPDIR", str(tmp_path))
  result = _report("--smoke")
  (folder,) = tmp_path.iterdir()
  assert result.stdout.splitlines()[-1] == f"all: {folder / 'index.html'}"
  page = (folder / "index.html").read_text()
  for name in ("bundled", "random"):
    assert f'href="{name}/report/index.html"' in page
    summary = json.loads((folder / name / "summary.json").read_text())
    assert summary["num_frames"] == 24 and summary["finished"]
  assert ">init</th>" in page

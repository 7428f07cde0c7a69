"""The binary that runs many streams, as a newcomer types it."""

import json
import re

import pytest

from tests import binaries


def test_a_site_of_streams_some_of_which_are_dead(tmp_path):
  (tmp_path / "list.txt").write_text(
    "# the site\n"
    "gate, synthetic:sports?seed=3\n"
    "synthetic:sports?seed=4\n"
    "again, synthetic:sports?seed=4\n"
    "gone, no/such/file.mp4\n"
  )
  words = (
    f"--streams={tmp_path}/list.txt",
    f"--workdir={tmp_path}/site",
    *("--height=48", "--width=64", "--num_frames=20", "--init=random"),
    *("--model=jitnet:width=0.05", "--u_max=1", "--classes=person"),
  )
  ended = binaries.run("fleet", *words)
  assert ended.returncode == 1, ended.stderr
  assert "list.txt" not in ended.stderr
  assert "line 4 is left out: synthetic:sports?seed=4" in ended.stderr
  assert "Traceback" not in ended.stderr
  first, second, dead, page = ended.stdout.splitlines()
  counts = "40 frames, 6 key frames, 6 updates"
  assert first == f"not done: 2 of 3 streams (1 dead), {counts}"
  assert re.match(r"[\d.]+ frames/s and [\d.]+ calls of a shared", second)
  assert dead.startswith("dead: gone: ") and "no/such/file.mp4" in dead
  assert page == f"report: {tmp_path}/site/report/index.html"
  summary = json.loads((tmp_path / "site" / "summary.json").read_text())
  assert set(summary["streams"]) == {"gate", "synthetic-sports-seed-4", "gone"}
  # Without the dead one the same site is done, and says so.
  (tmp_path / "list.txt").write_text("gate, synthetic:sports?seed=3\n")
  ended = binaries.succeed("fleet", *words)
  assert ended.stdout.startswith("done: 1 of 1 streams, 20 frames")


@pytest.mark.slow
def test_smoke():
  ended = binaries.succeed("fleet", "--smoke")
  assert "done: 3 of 3 streams, 72 frames" in ended.stdout

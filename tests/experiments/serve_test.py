"""`--serve` as a person uses it: a run that is watched, in the real binary."""

import http.client
import json
import pathlib
import re

from ojd.serve.display import UNSEEN, LiveDisplay
from tests import binaries
from tests.reference import small_run

SMALL = (
  *("--height=48", "--width=64", "--teacher=ground_truth", "--nooverlay"),
  *("--num_frames=60", "--init=random", "--model=jitnet:width=0.1"),
)
TOKEN = "open-sesame"


def _get(port, path, **headers):
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
  connection.request("GET", path, headers=headers)
  return connection.getresponse()


def test_watched_run_tells_its_end_and_keeps_its_secret(tmp_path):
  path = tmp_path / "run"
  flags = (f"--workdir={path}", *SMALL)
  served = ("--serve=127.0.0.1:0", f"--serve_token={TOKEN}")
  with binaries.start("online_distill", *flags, *served) as process:
    line = process.stderr.readline()
    match = re.match(r"live view: http://127\.0\.0\.1:(\d+)/", line)
    assert match and TOKEN not in line
    port = int(match[1])
    assert _get(port, "/healthz").status == 401
    answer = _get(port, "/events", Authorization=f"Bearer {TOKEN}")
    rows = [row for row in answer if row.startswith(b"data: ")]
    events = [json.loads(row[6:]) for row in rows]
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in stderr, stderr
  last, metrics = events[-1], small_run.lines(path)
  assert events[0]["state"] == "starting" and last["state"] == "finished"
  summary = json.loads((path / "summary.json").read_text())
  assert last["summary"]["num_updates"] == summary["num_updates"]
  assert last["counts"]["num_frames"] == len(metrics) == 60
  points = {"stride": [], "updates": []}
  for event in events:
    for name in points:
      tail = event["series"][name]
      points[name] = points[name][: tail["start"]] + tail["points"]
  assert points["stride"] == [[m["t"], m["stride"]] for m in metrics]
  assert points["updates"] == [
    [m["t"], m["num_updates"]] for m in metrics if m["is_key"]
  ]
  assert TOKEN not in stdout + stderr
  for file in filter(pathlib.Path.is_file, path.rglob("*")):
    assert TOKEN.encode() not in file.read_bytes(), file
  # Watching is no part of the run: without it this is still the same one.
  again = binaries.succeed("online_distill", *flags)
  assert "finished" in again.stdout


def test_resumed_run_shows_its_past(tmp_path, small_students):
  wanted = small_run.config(tmp_path / "run", num_frames=30)
  stopped, display = LiveDisplay(), LiveDisplay()
  small_run.play(wanted, stop=12, display=stopped)
  assert stopped.counts().state == "stopped"
  small_run.play(wanted, display=display)
  news, _ = display.news(UNSEEN)
  for name in ("miou", "stride"):
    points = news["series"][name]["points"]
    assert [t for t, _ in points] == list(range(30))
  # When the first frames were, nobody knows any more.
  assert news["series"]["fps"]["points"][0][0] == 13
  assert news["state"] == "finished"
  assert display.latest().number == 18
  assert display.counts().progress.seconds["learn"] > 0

"""Comparisons as launches: the cells that `compare` looks for."""

import json
import os

import pytest

from launch import plan as plans
from launch import table as tables
from launch.runs import Run
from ojd.compare import folder as folders
from ojd.compare import spec
from ojd.streams import lvs
from tests import launches
from tests.reference import lvs_folder
from tests.reference.refusals import refused

HEAD = 'binary = "compare"\noutput = "out"\nrepeats = 2\n'
BODY = """
[comparison]
streams = ["folder:a,b@Cars", "synthetic:park"]
systems = ["fixed:stride=4", "jit:link=up_mbps=8,rtt_ms=5"]
"""


def _plan(tmp_path, text, output=""):
  path = tmp_path / "table.toml"
  path.write_text(text)
  return plans.make(tables.read(path), output)


def test_every_stream_meets_every_system_and_seed(tmp_path):
  text = f"{HEAD}[flags]\nheight = 64\na_thresh = 1\n{BODY}"
  plan = _plan(tmp_path, text, str(tmp_path / "out"))
  assert len(plan.runs) == 8
  stream = spec.StreamEntry("folder:a,b", "b", "Cars")
  system = spec.SystemEntry("", "fixed", options=(("stride", 4),))
  folder = tmp_path / "out" / folders.cell(stream, system, 1)
  assert plan.runs[1] == Run(
    folder.name,
    (
      "experiments.online_distill",
      *("--nooverlay", "--height=64", "--a_thresh=1.0"),
      *("--stream=folder:a,b", "--system=fixed:stride=4", "--seed=1"),
      f"--workdir={folder}",
    ),
    folder,
  )
  assert "--link=up_mbps=8,rtt_ms=5" in plan.runs[2].command
  # What sums up says the same with its own commas.
  assert plan.last == (
    *("experiments.compare", f"--output={tmp_path}/out"),
    *(r"--streams=folder:a\,b@Cars", "--streams=synthetic:park"),
    r"--systems=fixed:stride=4,jit:link=up_mbps=8\,rtt_ms=5",
    *("--repeat=2", "--nooverlay", "--height=64", "--a_thresh=1.0"),
  )
  plan.prepare()
  content = json.loads((tmp_path / "out" / "compare.json").read_text())
  assert content["settings"]["height"] == 64
  other = _plan(tmp_path, f"{HEAD}{BODY}", str(tmp_path / "out"))
  with refused("other --a_thresh (1.0, now None)"):
    other.prepare()
  unused = _plan(
    tmp_path,
    f"{HEAD}[flags]\nu_max = 3\n"
    + BODY.replace("jit:link=up_mbps=8,rtt_ms=5", "frozen").replace(
      "fixed:stride=4", "teacher"
    ),
    str(tmp_path / "unused"),
  )
  with refused("--u_max=3: none of the systems uses it"):
    unused.prepare()
  twice = BODY.replace("jit:link=up_mbps=8,rtt_ms=5", "fixed:stride=4")
  with refused("two runs would be called"):
    _plan(tmp_path, HEAD + twice)


@pytest.mark.parametrize(
  ("text", "words"),
  (
    (
      "[flags]\nnix = 3",
      "line 5: flags.nix: this is no flag",
    ),
    ("[flags]\nheight = '64'", "flags.height: Expected `int"),
    ("[flags]\nboxes = 1", "flags.boxes: Expected `bool`"),
    ("[flags]\ninit = 3", "flags.init: Expected `str`"),
    ("[flags]\nsystem = 'jit'", "system: it is [comparison] systems here"),
    ("[flags]\nseed = 1", "seed: it is repeats here"),
    ("[flags]\na_thresh = 7", "--a_thresh=7.0: number, from 0 to 1"),
  ),
)
def test_wrong_shared_flags_are_one_line(tmp_path, text, words):
  with refused(words):
    _plan(tmp_path, f"{HEAD}{text}{BODY}")


def test_second_table_is_all_streams_of_lvs_by_the_papers_columns(monkeypatch):
  monkeypatch.setenv("LVS", "/data/lvs")
  monkeypatch.setenv("STUDENT", "bundled")
  table = tables.read(tables.find("table2"))
  ids = [stream.removeprefix("lvs:/data/lvs/") for stream in table.streams]
  assert ids == list(lvs.STREAMS)
  plan = plans.make(table)
  assert len(plan.runs) == 30 * 6
  commands = [" ".join(run.command) for run in plan.runs]
  assert all("--num_frames=30000 --height=720" in words for words in commands)
  columns = ("offline_oracle", "flow:slow", "flow:fast", "jit")
  counts = [sum(f"--system={c} " in w for w in commands) for c in columns]
  assert counts == [30, 30, 30, 90]
  assert sum("--a_thresh=0.9 " in words for words in commands) == 30


@pytest.mark.slow  # twelve small runs
def test_second_table_is_printed_of_small_streams(tmp_path):
  names = ("driving1", "drone2")
  (tmp_path / "labels").mkdir()
  for name in names:
    root = lvs_folder.make(tmp_path / name, name)
    for path in root.glob("*.npy"):
      (tmp_path / "labels" / path.name).symlink_to(path)
  lines = tables.find("table2").read_text().splitlines()
  is_kept = lambda x: "lvs:" not in x or any(f"/{name}" in x for name in names)
  text = "\n".join(filter(is_kept, lines))
  for large, small in (
    *(("cores = 4", "cores = 1"), ("memory_gb = 8", "memory_gb = 1")),
    *(("height = 720", "height = 48"), ("width = 1280", "width = 64")),
  ):
    assert large in text
    text = text.replace(large, small)
  (tmp_path / "table.toml").write_text(text)
  output = tmp_path / "out"
  launch = lambda: launches.launch(
    *("local", str(tmp_path / "table.toml"), f"--output={output}"),
    env={**os.environ, "LVS": str(tmp_path), "STUDENT": "bundled"},
  )
  result = launch()
  assert result.returncode == 0, result.stderr
  assert "12 of 12 runs are done" in result.stdout
  assert (output / "table.txt").read_text().rstrip() in result.stdout
  registry = [*(output / "launch").glob("*.json")]
  assert [json.loads(x.read_text())["code"] for x in registry] == [0] * 12
  # The comparison itself had nothing to do but to read, and so has another.
  summaries = [*output.glob("cells/*/summary.json")]
  times = lambda: [path.stat().st_mtime_ns for path in (*summaries, *registry)]
  before = times()
  assert launch().stdout == result.stdout
  assert times() == before and len(before) == 24
  titles = [line[:27].strip() for line in result.stdout.splitlines()[2:9]]
  assert titles == [
    *("Overall", "", "Category averages", "Sports (Moving)"),
    *("Driving/Walking", "", "Sports (Moving)"),
  ]
  for words in ("Driving (P,A,Bk)", "Drone (P)", "offline_oracle", "jit a_t"):
    assert words in result.stdout

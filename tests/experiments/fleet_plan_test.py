"""The flags of the simulation, and what it leaves."""

import csv
import json
import subprocess
import sys

import pytest

from tests import binaries, workdirs

# In a process of its own: binaries that define the same flags are tested here
# as well.
_DRIVE = """
import json, pathlib, sys
from absl import flags
from experiments import fleet_plan
from ojd.errors import UserError
from ojd.fleet import plan

plan._KEY_FRAMES, plan._LEAST_STREAMS = 500, 50
output = pathlib.Path(sys.argv[1])
for words in json.load(sys.stdin):
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  try:
    flags.FLAGS(["program", *words])
    print("exit", fleet_plan.simulate(output))
  except (UserError, flags.Error) as error:
    print("refused", error)
"""


def _drive(output, *lines):
  """What it prints."""
  command = [sys.executable, "-c", _DRIVE, str(output)]
  options = {"cwd": binaries.ROOT, "text": True, "input": json.dumps(lines)}
  return subprocess.check_output(command, **options)


@pytest.fixture
def run(tmp_path):
  rows = workdirs.rows(200)
  for row in rows:
    if row["is_key"]:
      row |= {"ms_teacher": 50.0, "ms_learn": 90.0}
  path = workdirs.make(tmp_path / "made", rows)
  config = json.loads((path / "config.json").read_text())
  config["stream"] = {"stream": "synthetic:street?fps=25"}
  (path / "config.json").write_text(json.dumps(config))
  return path


def test_a_plan_is_printed_and_written_and_its_runs_may_go(tmp_path, run):
  kept, plan = tmp_path / "kept", tmp_path / "plan"
  terms = ["--sizes=20,4", "--plan_streams=40", "--latency=0.1"]
  printed = _drive(
    plan,
    [f"--runs=street={run},{run}", f"--runs={run}", *terms],
    [f"--runs=street={run}", f"--export_traces={kept}"],
    [f"--runs={kept / 'street.json'}", *terms],
  )
  assert "refused" not in printed
  assert printed.count("exit 0") == 3
  assert f"{plan / 'plan.png'}" in printed
  first, _, last = printed.split("exit 0")[:3]
  rows = [line.split() for line in first.splitlines()]
  assert [r[1] for r in rows if r and r[0] == "made"][:2] == ["4", "20"]
  # The same numbers from the file as from the run.
  of = lambda text: [x for x in text.splitlines() if x.startswith("street")]
  assert len(of(last)) > 5
  content = json.loads((plan / "plan.json").read_text())
  assert content["terms"]["latency"] == 0.1
  assert content["scenes"]["street"]["interval"] == pytest.approx(0.4)
  with (plan / "plan.csv").open() as file:
    table = list(csv.DictReader(file))
  assert {row["scene"] for row in table} == {"street"}
  assert (plan / "plan.png").stat().st_size > 10_000


def test_bad_requests_are_a_line(tmp_path, run):
  ours = f"--runs=a={run}"
  cases = {
    (): "--runs=NAME=DIR,... is missing",
    (ours, ours): "two kinds of scene are called a",
    (f"--runs=={run}",): "NAME=DIR,DIR,...",
    (f"--runs=a={tmp_path}",): "is no workdir",
    (ours, "--sizes=10,many"): "--sizes=10,many",
    (ours, "--latency=0"): "--latency=0: above 0",
    (ours, "--latency=0.01"): "the teacher alone takes 0.05",
    (ours, "--plan_batch=0"): "--plan_batch=0: ",
    (ours, "--plan_more=2"): "--plan_more=2",
    (ours, "--streams_per_device=9"): "to predict every frame",
    (ours, "--plan_teacher_ms=250"): "the teacher alone takes 0.25",
    (ours, "--plan_teacher_ms=-1"): "--plan_teacher_ms=-1: above 0",
    (f"--runs=a={run},{run}", "--export_traces=x"): "a file is of one",
    (f"--check={tmp_path}",): "no fleet ran here",
  }
  printed = _drive(tmp_path / "plan", *map(list, cases))
  found = [x for x in printed.splitlines() if x.startswith("refused")]
  assert len(found) == len(cases)
  for line, words in zip(found, cases.values(), strict=True):
    assert words in line

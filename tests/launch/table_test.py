"""Sweep tables: what they mean, and what is said against wrong ones."""

import pytest

from launch import plan as plans
from launch import table as tables
from tests.reference.refusals import refused

GRID = """
binary = "online_distill"
output = "$PLACE/out"
repeats = 2
cores = 3
memory_gb = 1.5

[flags]
teacher = "ground_truth"
a_thresh = 0.5
overlay = false

[grid]
a_thresh = [0.7, 0.9]

[grid.scene.park]
stream = "synthetic:park"
classes = "person;dog"

[grid.scene.street]
stream = "synthetic:street?seed=${SEED}"
"""
HEAD = 'binary = "online_distill"\noutput = "o"\n'
COMPARE = 'binary="compare"\noutput="o"\n'


def _read(tmp_path, text):
  path = tmp_path / "table.toml"
  path.write_text(text)
  return tables.read(path)


@pytest.fixture(autouse=True)
def _variables(monkeypatch):
  monkeypatch.setenv("PLACE", "runs")
  monkeypatch.setenv("SEED", "3")
  monkeypatch.delenv("UNSET", raising=False)


def test_grid_is_multiplied_out(tmp_path):
  table = _read(tmp_path, GRID)
  assert table.need == tables.Need(cores=3, memory_gb=1.5, gpus=0)
  plan = plans.make(table)
  assert [run.name for run in plan.runs] == [
    f"a_thresh={a}-{scene}-seed={seed}"
    for a in (0.7, 0.9)
    for scene in ("park", "street")
    for seed in (0, 1)
  ]
  assert str(plan.output) == "runs/out"
  assert plan.runs[1].command == (
    *("experiments.online_distill", "--teacher=ground_truth"),
    "--a_thresh=0.7",  # of the grid, in the place of the shared one
    *("--nooverlay", "--stream=synthetic:park", "--classes=person;dog"),
    *("--seed=1", "--workdir=runs/out/a_thresh=0.7-park-seed=1"),
  )
  assert "--stream=synthetic:street?seed=3" in plan.runs[2].command
  assert plan.last == ("experiments.report", "runs/out")


def test_names_are_plain_and_stay_when_others_join(tmp_path):
  streams = '"synthetic:park?seed=1", "synthetic:park&seed=1"'
  text = 'binary = "record"\noutput = "out"\n[grid]\nstream = [{}]'
  make = lambda streams: plans.make(
    _read(tmp_path, text.format(streams)), "elsewhere"
  )
  first = make(streams).runs
  # What is no letter is lost in both, but not what tells them apart.
  names = [run.name for run in first]
  assert len(set(names)) == 2
  assert all(n.startswith("stream=synthetic_park_seed=1-") for n in names)
  assert first[0].command[-1] == f"--out=elsewhere/{names[0]}"
  again = make(f'{streams}, "other"').runs
  assert len(again) == 3 and set(first) < set(again)
  # Long values make short names.
  values = [f"video/{'x' * 300}{i}.mp4" for i in range(2)]
  text = f"{HEAD}[grid]\nstream={values}"
  names = [run.name for run in plans.make(_read(tmp_path, text)).runs]
  assert len(set(names)) == 2 and max(map(len, names)) <= 120


def test_table_without_a_grid_is_one_run(tmp_path):
  text = 'binary = "pretrain"\noutput = "a$$b"\nflags.num_steps = 3'
  (run,) = plans.make(_read(tmp_path, text)).runs
  flags = ("--num_steps=3", "--workdir=a$b/run")
  assert run.command == ("experiments.pretrain", *flags)


def test_runs_are_chosen_by_their_names(tmp_path):
  plan = plans.make(_read(tmp_path, HEAD + "[grid]\nseed=[1, 2, 12]"))
  chosen = plans.select(plan.runs, ["seed=1"])
  assert [run.name for run in chosen] == ["seed=1", "seed=12"]
  assert plans.select(plan.runs, []) == plan.runs
  with refused("--only=nix: no run"):
    plans.select(plan.runs, ["nix"])


@pytest.mark.parametrize(
  ("text", "words"),
  (
    ("binary = [", "is no table in TOML"),
    ('output = "o"', "table.toml: binary: it is missing"),
    ('binary = "online_distill"', ": output: it is missing"),
    ('binary="nix"\noutput="o"', ", line 1: binary: 'nix' is not one of fleet"),
    ('binary = 3\noutput = "o"', "binary: expected `str`, got `int`"),
    (
      HEAD + "cpus = 2",
      ", line 3: cpus: there is no such key; known are",
    ),
    (HEAD + "repeats = 0", ", line 3: repeats: expected `int` >= 1"),
    (HEAD + "repeats = true", "repeats: expected `int | null`, got `bool`"),
    (HEAD + "cores = 1.5", "cores: expected `int`, got `float`"),
    (HEAD + "gpus = -1", "gpus: expected `int` >= 0"),
    (HEAD + "memory_gb = 0", "memory_gb: expected `float` > 0"),
    (HEAD + "memory_gb = nan", "memory_gb: expected `float` > 0"),
    (HEAD + "flags = 3", "flags: expected `object`, got `int`"),
    (HEAD + "[flags]\nA = 3", ", line 4: flags.A: this is no name of a flag"),
    (
      HEAD + "[flags]\na = [3]",
      ", line 4: flags.a: expected `bool | int |",
    ),
    (HEAD + "[flags]\nstream = '$UNSET'", "$UNSET is not set; export UNSET="),
    (HEAD + "[grid]\nseed = []", "grid.seed: a list of values"),
    (HEAD + "[grid]\nseed = 3", "grid.seed: a list of values"),
    (HEAD + "[grid]\nx.y = 3", "grid.x.y: expected `object`, got `int`"),
    (HEAD + "[grid]\nseed = [1, 1]", "two runs would be called 'seed=1'"),
    (
      HEAD + "[grid]\nseed = [{a=1}]",
      "grid.seed: expected `bool | int |",
    ),
    (
      HEAD + "[grid]\nseed=[1]\nx.y.seed=2",
      "line 4: grid.seed: it is on two",
    ),
    (HEAD + "[grid]\nx.launch={}", "'launch' is where the logs lie"),
    (HEAD + "[flags]\nworkdir = 'x'", "workdir: every run has a folder"),
    (HEAD + "repeats = 2\n[flags]\nseed = 1", "seed: that is what repeats"),
    (HEAD + "[comparison]", "line 3: comparison: [grid] is for this binary"),
    (
      HEAD + f"repeats = 10000\n[grid]\nu_max = {list(range(9))}",
      "90000 runs; a launch has at most 10000",
    ),
    (COMPARE + "[grid]", "line 3: grid: [comparison] is for this binary"),
    (COMPARE, "comparison: it is missing"),
    (
      COMPARE + "comparison.streams = []",
      ", line 3: comparison.streams:",
    ),
    (
      COMPARE + "[comparison]\nstreams=['a']",
      "comparison.systems: it is",
    ),
    (
      COMPARE + "[comparison]\nstreams=['a']\nnix=[1]",
      "comparison.nix: there is no such key; known are streams, systems",
    ),
  ),
)
def test_wrong_tables_are_one_line_that_names_the_file(tmp_path, text, words):
  with refused(words) as error:
    plans.make(_read(tmp_path, text))
  assert str(error.value).startswith(f"{tmp_path}/table.toml")


def test_files_that_are_not_there_or_no_text(tmp_path):
  path = tmp_path / "table.toml"
  for content, words in (
    (None, "no such table; bundled are smoke"),
    (b"\xff\xfe", "is no table in TOML"),
    (b"#" * (2 << 20), "more than 1 MB"),
  ):
    if content is not None:
      path.write_bytes(content)
    with refused(words):
      tables.read(path)
  with refused("Is a directory"):
    tables.read(tmp_path)


def test_bundled_tables_are_found_by_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert tables.find("smoke") == tables.BUNDLED / "smoke.toml"
  assert len(plans.make(tables.read(tables.find("smoke"))).runs) == 6
  assert str(tables.find("nix")) == "nix"
  (tmp_path / "smoke").touch()
  assert str(tables.find("smoke")) == "smoke"

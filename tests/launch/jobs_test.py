"""Runs as jobs of Slurm: by submitit's local executor, and a Slurm of shell."""

import json
import os
import signal

import psutil
import pytest
import submitit

from launch import jobs as jobs_lib
from launch.table import Need
from tests import binaries, launches
from tests.reference.refusals import refused


@pytest.fixture
def registry(tmp_path, monkeypatch):
  monkeypatch.chdir(binaries.ROOT)  # a job begins where it was submitted
  return launches.registry(tmp_path)


def _jobs(runs, registry):
  about = (registry, 1, str(binaries.ROOT), 20.0)
  return {run: jobs_lib.Job(run, *about) for run in runs}


def test_requeued_job_runs_the_same_command_again(tmp_path, registry):
  run = launches.run(tmp_path, "once")
  executor = submitit.LocalExecutor(tmp_path / "jobs")
  executor.update_parameters(timeout_min=5)
  submitted, submit = [], executor.submit
  executor.submit = lambda job: submitted.append(submit(job)) or submitted[-1]
  (name,) = jobs_lib.submit(executor, _jobs([run], registry), registry)
  assert registry.job(run) == name
  assert registry.job(launches.run(tmp_path, "wait")) is None
  launches.wait_for((run.folder / "begun").exists)
  (child,) = psutil.Process(int(name)).children()
  child.send_signal(signal.SIGUSR2)  # as Slurm does before the end
  (job,) = submitted
  assert job.result() is None
  # It was told to end, ended cleanly, and began once more with the same words.
  assert (run.folder / "ended").read_text() == "15\n"
  first, second = (run.folder / "begun").read_text().splitlines()
  assert first == second == str(list(run.command[1:]))
  assert registry.is_done(run)


_PROGRAMS = {
  # Starts the script for each index of its array, beside itself.
  "sbatch": """
    cp "$1" "$FAKE/script"
    [ -e "$FAKE/full" ] && echo "Submitted batch job 70" && exit
    last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
    for index in $(seq 0 "${last:-0}"); do
      SLURM_JOB_ID=$((70 + index)) SLURM_ARRAY_JOB_ID=70 SLURM_PROCID=0 \\
        SLURM_ARRAY_TASK_ID=$index SLURM_LOCALID=0 bash "$1" > /dev/null 2>&1 &
    done
    echo "Submitted batch job 70"
  """,
  "srun": """
    while [ "${1#-}" != "$1" ]; do
      case "$1" in --output) output=$2; shift;; esac
      shift
    done
    exec "$@" > "$FAKE/srun.$SLURM_ARRAY_TASK_ID" 2>&1
  """,
  "squeue": 'cat "$FAKE/queue"',
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
  """Programs named as Slurm's, and the folder that they share."""
  folder = tmp_path / "slurm"
  folder.mkdir()
  for name, text in _PROGRAMS.items():
    (folder / name).write_text(f"#!/bin/bash\n{text}")
    (folder / name).chmod(0o755)
  monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
  monkeypatch.setenv("FAKE", str(folder))
  return folder


def test_generated_batch_runs_the_commands(tmp_path, registry, slurm):
  runs = [launches.run(tmp_path, "end", x, name=f"r{x}") for x in "03"]
  executor = submitit.AutoExecutor(registry.folder / "slurm", cluster="slurm")
  parameters = jobs_lib.parameters(
    Need(cores=2, memory_gb=1.5, gpus=1),
    **{"time_text": "1-02:03:04", "at_a_time": 7, "grace": 30.0},
    **{"partition": "big", "account": "me"},
    more=["constraint=a100", "nice=5"],
  )
  executor.update_parameters(**parameters)
  names = jobs_lib.submit(executor, _jobs(runs, registry), registry)
  assert names == ["70_0", "70_1"]
  assert [registry.job(run) for run in runs] == names
  script = (slurm / "script").read_text().splitlines()
  assert {
    *("#SBATCH --array=0-1%2", "#SBATCH --cpus-per-task=2"),
    *("#SBATCH --mem=1536MB", "#SBATCH --gpus-per-node=1"),
    *("#SBATCH --time=1564", "#SBATCH --signal=USR2@90"),
    *("#SBATCH --partition=big", "#SBATCH --account=me"),
    *("#SBATCH --constraint=a100", "#SBATCH --nice=5"),
    "#SBATCH --job-name=ojd",
  } <= set(script)
  launches.wait_for(lambda: all(registry.record(run).exists() for run in runs))
  assert [registry.is_done(run) for run in runs] == [True, False]
  for run in runs:
    record = json.loads(registry.record(run).read_text())
    assert record["command"] == list(run.command)
  failed = slurm / "srun.1"
  launches.wait_for(lambda: "code 3: the last line" in failed.read_text())


@pytest.mark.slow  # four launches
def test_launch_submits_what_is_neither_done_nor_in_the_queue(tmp_path, slurm):
  table, queue = launches.table(tmp_path, [3, 5]), slurm / "queue"

  def launch():
    done = launches.launch("slurm", table)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition(";")[0].strip()

  queue.touch()
  (slurm / "full").touch()  # nothing starts as yet
  now = "{} of 2 runs are done, {} are in the queue, {} were submitted"
  assert launch() == now.format(0, 0, 2) + " as 70_0 to 70_1"
  queue.write_text("70_0\n70_1\n99\n")
  assert launch() == now.format(0, 2, 0)
  queue.write_text("70_1\n")
  (slurm / "full").unlink()
  assert launch() == now.format(0, 1, 1) + " as 70"
  registry = tmp_path / "out" / "launch"
  records = lambda: [
    p for p in registry.glob("*.json") if ".job." not in p.name
  ]
  launches.wait_for(records)
  assert launch() == now.format(1, 1, 0)


def test_times_are_minutes_rounded_up_and_wrong_requests_refused():
  given = ("12:00:00", "0:00:01", "1-00:01:00")
  assert [jobs_lib.minutes(text) for text in given] == [720, 1, 1441]
  times = ("", "12", "0:00:00", "1:60:00", "x", "-1:0:0")
  for flags, words in (
    *(({"time_text": x}, "HH:MM:SS is meant, as 12:00:00") for x in times),
    ({"more": ["x"]}, "--sbatch=x: NAME"),
    ({"at_a_time": 0}, "--at_a_time=0"),
  ):
    given = {"time_text": "1:00:00", "at_a_time": 1, "grace": 1.0} | flags
    with refused(words):
      jobs_lib.parameters(Need(), **given)

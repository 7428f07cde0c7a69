"""The host loop on coloured squares, and a teacher that knows them."""

import functools
import json
import time

from ojd import labels, systems, updates
from ojd.run import build, workdir
from ojd.run.config import RunConfig
from ojd.run.executor import Executor
from tests.reference import scenes, tiny_student

NUM_FRAMES = 30
GROUPS = labels.parse_groups("", scenes.NAMES)
STUDENT = tiny_student.make()


def system(tx=None):
  """Asks every 2 to 8 frames and makes up to 4 updates."""
  tx = tx or updates.sgd(learning_rate=0.3)
  strides = {"delta_min": 2, "delta_max": 8}
  return systems.jit(STUDENT, tx, a_thresh=0.8, u_max=4, **strides)


SYSTEM = system()


@functools.cache
def executor() -> Executor:
  """Compiled once for all loops."""
  return Executor(SYSTEM, 16, 20, 0, with_readonly=True)


class Teacher:
  """Knows a stream's answers; fails so many times on a frame."""

  class_names = scenes.NAMES
  is_free = False

  def __init__(self, stream, failures=(), seconds=0.0):
    self.stream, self.seconds, self.calls = stream, seconds, []
    self.failures = dict(failures)

  def __call__(self, sample):
    self.calls.append(sample.t)
    time.sleep(self.seconds)
    if self.failures.get(sample.t, 0) > 0:
      self.failures[sample.t] -= 1
      raise RuntimeError("out of memory")
    return self.stream.labels.classes[sample.t]


def job(path, stream, teacher=None, system=SYSTEM, **flags) -> build.Job:
  """By default the teacher is one that never fails."""
  config = RunConfig(workdir=str(path), **{"overlay": False} | flags)
  truth_groups = GROUPS if stream.has_truth else None
  teacher = teacher or Teacher(stream)
  return build.Job(config, stream, teacher, GROUPS, truth_groups, system)


def run(loop, path):
  """Returns the summary, the lines of the metrics, and what went wrong."""
  problems = []
  loop.progress_fn = lambda p: p.problem and problems.append(p.problem)
  summary = loop.run()
  text = (path / workdir.METRICS).read_text()
  return summary, [json.loads(line) for line in text.splitlines()], problems

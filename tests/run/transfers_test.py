"""Between key frames only a frame goes to the device, and classes come back."""

import json

import jax
import numpy as np
import pytest

from ojd.run import build
from ojd.run.loop import Loop
from tests.reference import small_run


@pytest.fixture(autouse=True)
def _small(small_students):
  del small_students


def _job(path):
  config = small_run.CONFIG
  return build.make_job(
    config.__class__(**(vars(config) | {"workdir": str(path), "num_frames": 6}))
  )


def test_what_predict_takes_from_the_host_unasked_ends_the_run(tmp_path):
  job = _job(tmp_path)
  compiled = build.compile_system(job.system, 48, 64, seed=0)
  nothing = jax.jit(lambda classes, zeros: classes + zeros)

  def leaky(state, frame):
    state, classes = compiled.predict(state, frame)
    return state, nothing(classes, np.zeros((48, 64), np.uint8))

  run = Loop(job, tmp_path, compiled=compiled._replace(predict=leaky)).run
  with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
    run()


def test_predict_of_a_run_takes_nothing_else(tmp_path):
  job = _job(tmp_path)
  guards = []
  compiled = build.compile_system(job.system, 48, 64, seed=0)

  def watched(state, frame):
    guards.append(jax.config.jax_transfer_guard_host_to_device)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
    assert isinstance(frame, jax.Array)
    return compiled.predict(state, frame)

  summary = Loop(
    job, tmp_path, compiled=compiled._replace(predict=watched)
  ).run()
  assert summary["finished"]
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  num_keys = sum(json.loads(line)["is_key"] for line in lines)
  assert len(guards) == 6 - num_keys > 0 and set(guards) == {"disallow"}

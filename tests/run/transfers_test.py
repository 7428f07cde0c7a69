"""Between key frames only a frame goes to the device, and classes come back."""

import json

import jax
import numpy as np
import pytest

from ojd.run import build, runner
from ojd.run.loop import Loop
from tests.reference import small_run


@pytest.fixture(autouse=True)
def _small(small_students):
  del small_students


def _run(path, monkeypatch, predict_of):
  """A run whose compiled `predict` is another function around it."""
  config = small_run.config(path, num_frames=6)
  job = build.make_job(config)
  executor = build.make_executor(job)
  predict = predict_of(executor._predict)
  monkeypatch.setattr(executor, "_predict", predict)
  return Loop(job, path, runner.make_source(job), executor=executor).run()


def test_what_predict_takes_from_the_host_unasked_ends_the_run(
  tmp_path, monkeypatch
):
  nothing = jax.jit(lambda classes, zeros: classes + zeros)

  def leaky_of(predict):
    def leaky(state, frame):
      state, classes = predict(state, frame)
      return state, nothing(classes, np.zeros((48, 64), np.uint8))

    return leaky

  with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
    _run(tmp_path, monkeypatch, leaky_of)


def test_predict_of_a_run_takes_nothing_else(tmp_path, monkeypatch):
  guards = []

  def watched_of(predict):
    def watched(state, frame):
      guards.append(jax.config.jax_transfer_guard_host_to_device)
      assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
      assert isinstance(frame, jax.Array)
      return predict(state, frame)

    return watched

  assert _run(tmp_path, monkeypatch, watched_of)["finished"]
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  num_keys = sum(json.loads(line)["is_key"] for line in lines)
  assert len(guards) == 6 - num_keys > 0 and set(guards) == {"disallow"}

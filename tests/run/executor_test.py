"""Between key frames only a frame goes to the device, and classes come back."""

import jax
import numpy as np
import pytest

from ojd.run import build
from ojd.run.loop import Loop
from ojd.run.sources import InStep
from tests.reference import small_run


def _run(path, wrapped):
  """A run of six frames, whose `predict` goes through `wrapped`."""
  job = build.make_job(small_run.config(path, num_frames=6))
  made = build.make_executor(job)
  predict = made._predict
  made._predict = lambda *args: wrapped(predict, *args)
  return Loop(job, path, InStep(), executor=made).run()


def test_what_predict_takes_from_the_host_unasked_ends_the_run(
  tmp_path, small_students
):
  nothing = jax.jit(lambda classes, zeros: classes + zeros)

  def leaky(predict, *args):
    state, classes, upcoming = predict(*args)
    return state, nothing(classes, np.zeros((48, 64), np.uint8)), upcoming

  with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
    _run(tmp_path, leaky)


def test_predict_of_a_run_takes_nothing_else(tmp_path, small_students):
  guards = []

  def watched(predict, *args):
    guards.append(jax.config.jax_transfer_guard_host_to_device)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(args))
    return predict(*args)

  assert _run(tmp_path, watched)["finished"]
  num_keys = sum(row["is_key"] for row in small_run.lines(tmp_path))
  assert len(guards) == 6 - num_keys > 0 and set(guards) == {"disallow"}

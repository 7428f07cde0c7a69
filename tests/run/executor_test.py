"""Between key frames only a frame goes to the device, and classes come back."""

import jax
import numpy as np
import pytest

from ojd import systems, updates
from ojd.run import build, executor
from ojd.run.loop import Loop
from ojd.run.sources import InStep
from tests.reference import host_loop, scenes, small_run, tiny_student


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
    state, classes = predict(*args)
    return state, nothing(classes, np.zeros((48, 64), np.uint8))

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


@pytest.mark.parametrize("with_readonly", [False, True])
def test_an_answer_can_leave_the_state_as_it_is(with_readonly):
  system = systems.jit(tiny_student.make(), updates.sgd(learning_rate=0.3))
  frames, labels = scenes.coloured_squares(2)
  made = executor.Executor(system, 16, 20, 0, with_readonly=with_readonly)
  made.begin()
  made.learn(frames[0], host_loop.labels_of(labels, 0))
  first = made.predict_readonly(frames[1])
  assert int(made.state.t) == 1
  np.testing.assert_array_equal(made.predict(frames[1]), first)
  assert int(made.state.t) == 2

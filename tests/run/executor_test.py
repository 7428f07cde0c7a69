"""Between key frames only a frame goes to the device, and classes come back."""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import distill, schedules, systems, updates
from ojd.run import build, executor
from ojd.run.loop import Loop
from ojd.run.sources import InStep
from tests.reference import (
  host_loop,
  loop_run,
  scenes,
  small_run,
  tiny_student,
)


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
  made = build.make_executor(job)
  predict = made._predict
  nothing = jax.jit(lambda classes, zeros: classes + zeros)

  def leaky(state, frame):
    state, classes = predict(state, frame)
    return state, nothing(classes, np.zeros((48, 64), np.uint8))

  made._predict = leaky
  run = Loop(job, tmp_path, InStep(), executor=made).run
  with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
    run()


def test_predict_of_a_run_takes_nothing_else(tmp_path):
  job = _job(tmp_path)
  guards, made = [], build.make_executor(job)
  predict = made._predict

  def watched(state, frame):
    guards.append(jax.config.jax_transfer_guard_host_to_device)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
    assert isinstance(frame, jax.Array)
    return predict(state, frame)

  made._predict = watched
  summary = Loop(job, tmp_path, InStep(), executor=made).run()
  assert summary["finished"]
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  num_keys = sum(json.loads(line)["is_key"] for line in lines)
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


class _Early(NamedTuple):
  inner: Any
  due: jax.Array


def _asking_early(system):
  """The system, whose `predict` wants the frame after each 5 k + 2 labelled."""
  never = jnp.int32(schedules.NEVER)

  def learn(state, frame, labels):
    inner, *others = system.learn(state.inner, frame, labels)
    return _Early(inner, never), *others

  def predict(state, frame):
    inner, answer = system.predict(state.inner, frame)
    due = jnp.where(state.inner.t % 5 == 2, inner.t, never)
    return _Early(inner, due), answer

  return distill.System(
    lambda key, frame: _Early(system.init(key, frame), never),
    lambda state: jnp.minimum(state.due, system.next_key(state.inner)),
    learn,
    predict,
  )


def test_a_system_may_ask_for_a_key_frame_early(tmp_path):
  system = _asking_early(
    systems.fixed(tiny_student.make(), updates.sgd(), stride=16)
  )
  stream = scenes.Stream(30)
  made = executor.Executor(system, 16, 20, 0)
  loop = Loop(loop_run.job(tmp_path, stream), tmp_path, InStep(), executor=made)
  _, lines, _ = loop_run.run(loop, tmp_path)
  keys = [line["t"] for line in lines if line["is_key"]]
  assert keys == [0, 3, 8, 13, 16, 18, 23, 28]
  # The scan asks at the same frames.
  first = system.init(jax.random.key(0), stream.frames[0])
  _, (_, info) = distill.scan_stream(
    system, first, stream.frames, stream.labels
  )
  assert np.flatnonzero(info.loss).tolist() == keys

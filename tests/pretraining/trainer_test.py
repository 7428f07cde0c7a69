"""Training beforehand: the steps, resuming, and the same over devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ojd import losses
from ojd.models import student as student_lib
from ojd.pretraining import data_parallel, trainer
from ojd.types import Labels
from tests.reference import (
  host_loop,
  parallel_training,
  small_run,
  tiny_student,
)
from tests.reference.compare import close, equal
from tests.reference.parallel_training import make_batch
from tests.reference.refusals import refused

RECIPE = trainer.Recipe(num_steps=6, batch=4, height=24, width=32)
STUDENT = tiny_student.make()


def _train(folder, recipe=RECIPE, student=STUDENT, **more):
  return trainer.train(student, recipe, {}, make_batch, folder, **more)


def test_loss_of_a_batch_is_the_mean_of_its_frames():
  params = trainer.init(STUDENT, RECIPE).params
  frames, labels = make_batch(0)
  singles = [
    losses.weighted_cross_entropy(
      STUDENT.apply(params, frame), host_loop.labels_of(labels, i)
    )
    for i, frame in enumerate(frames)
  ]
  whole = trainer.batch_loss(STUDENT, params, frames, labels)
  np.testing.assert_allclose(whole, np.mean(singles), rtol=1e-6)


@pytest.mark.parametrize("is_jitted", [True, False])
def test_a_step_is_adamw_on_kernels_alone(is_jitted):
  recipe = RECIPE._replace(weight_decay=0.5)
  state, tx = trainer.init(STUDENT, recipe), trainer.make_tx(recipe)
  batch = make_batch(0)
  step = lambda state: trainer.update(STUDENT, tx, state, *batch)
  step = jax.jit(step) if is_jitted else step
  second, _ = step(step(state)[0])
  # The first rate is 0, the second a 200th of the highest; Adam's first
  # direction of an unchanged gradient is its sign.
  grads = jax.grad(lambda p: trainer.batch_loss(STUDENT, p, *batch))(
    state.params
  )
  rate, old = recipe.learning_rate / 200, state.params
  bias = old["bias"] - rate * np.sign(grads["bias"])
  decay = 0.5 * old["kernel"]
  kernel = old["kernel"] - rate * (np.sign(grads["kernel"]) + decay)
  close(second.params, {"kernel": kernel, "bias": bias}, 1e-7, 1e-7)


def test_the_authors_adam_divides_by_one_and_falls_tenfold():
  recipe = RECIPE._replace(
    optimizer="slow_adam", learning_rate=0.1, weight_decay=0.0, decay_steps=2
  )
  tx = trainer.make_tx(recipe)
  params = {"kernel": jnp.ones((2, 2))}
  state, grads = tx.init(params), {"kernel": jnp.full((2, 2), 1e-3)}
  rates = []
  for _ in range(4):
    steps, state = tx.update(grads, state, params)
    # With corrected moments m = g and sqrt(v) = |g|.
    rates.append(-float(steps["kernel"][0, 0]) * (1e-3 + 1.0) / 1e-3)
  np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01], rtol=1e-3)


def test_a_step_that_is_not_finite_changes_only_the_count():
  state, tx = trainer.init(STUDENT, RECIPE), trainer.make_tx(RECIPE)
  frames, labels = make_batch(0)
  broken = Labels(labels.classes, np.full(labels.weights.shape, np.inf, "f4"))
  after, _ = trainer.update(STUDENT, tx, state, frames, broken)
  assert int(after.step) == 1
  equal(after[:2], state[:2])


def test_interrupted_training_ends_with_the_same_weights(tmp_path):
  for name in ("whole", "parts"):
    (tmp_path / name).mkdir()
  traces, rest = [], []
  seen = lambda *given: traces.append(None) or STUDENT.apply(*given)
  student = STUDENT._replace(apply=seen)
  whole = _train(tmp_path / "whole", student=student, save_every=2)
  assert len(traces) == 1  # it compiles once
  stops = iter([False, False, False, True])
  _train(tmp_path / "parts", save_every=2, should_stop=lambda: next(stops))
  parts = _train(tmp_path / "parts", save_every=2, report_fn=rest.append)
  # Nothing is lost, wherever it stops.
  assert [report.step for report in rest] == [3, 4, 5]
  equal(whole, parts)


def test_a_folder_of_another_recipe_or_a_broken_state_is_refused(tmp_path):
  _train(tmp_path)
  with refused("batch=4, not 3"):
    _train(tmp_path, RECIPE._replace(batch=3))
  (tmp_path / "training.msgpack").write_bytes(b"\x01\x02")
  with refused("cannot be read"):
    _train(tmp_path)


SGD = parallel_training.RECIPE._replace(num_steps=6)
SMALL = student_lib.from_linen(small_run.SmallNet(3))


@pytest.fixture
def mesh():
  return data_parallel.mesh_of(jax.devices()[:2])


def _curve(folder, student, **more):
  folder.mkdir(exist_ok=True)
  losses = []
  note = lambda made: losses.append(made.loss)
  params = _train(folder, SGD, student, report_fn=note, **more)
  return losses, jax.device_get(params)


def test_loss_curve_and_weights_are_those_of_one_device(mesh, tmp_path):
  losses, params = _curve(tmp_path / "one", SMALL)
  spread_losses, spread = _curve(tmp_path / "two", SMALL, mesh=mesh)
  assert len(losses) == 6 and losses[-1] < losses[0]
  np.testing.assert_allclose(spread_losses, losses, rtol=1e-5)
  close(spread, params, 1e-4, 1e-6)


def test_every_device_sees_its_rows_and_holds_the_whole_state(mesh):
  """By hand: the loss is the mean of what each device makes of its rows."""
  shapes = []

  def step_fn(state, x):
    shapes.append(x.shape)
    return state + 1, data_parallel.mean(x.sum())

  step = data_parallel.parallel(mesh, step_fn)
  state = data_parallel.replicate(mesh, np.zeros(3, np.float32))
  x = np.array([1, 2, 10, 20], np.float32)
  state, loss, is_wished = step(state, False, (x,))
  assert (float(loss), int(is_wished)) == ((3 + 30) / 2, 0)
  state, _, is_wished = step(state, True, (x,))
  assert int(is_wished) == 1
  assert shapes == [(2,)]  # traced once, with two rows a device
  assert state.sharding.spec == P() and len(state.addressable_shards) == 2
  for shard in state.addressable_shards:
    np.testing.assert_array_equal(shard.data, [2, 2, 2])


def test_devices_exchange_means_and_never_frames(mesh):
  """Kernels' gradients are loops over the batch, which XLA would gather."""
  tx = trainer.make_tx(SGD)
  update = lambda state, *batch: trainer.update(
    SMALL, tx, state, *batch, data_parallel.mean
  )
  state = data_parallel.replicate(mesh, trainer.init(SMALL, SGD))
  given = np.zeros(2, np.int32), make_batch(0)
  placed = data_parallel.shard(mesh, P(data_parallel.AXIS), given)
  program = data_parallel.program(mesh, update)
  text = program.lower(state, *placed).compile().as_text()
  found = re.findall(r"(all-reduce|all-gather|all-to-all)(?:-start)?\(", text)
  assert set(found) == {"all-reduce"}


def test_stopped_training_goes_on_over_any_devices(mesh, tmp_path):
  whole, params = _curve(tmp_path / "one", STUDENT)
  wishes = iter([False, True])
  stop = {"mesh": mesh, "should_stop": lambda: next(wishes)}
  first, _ = _curve(tmp_path / "parts", STUDENT, **stop)
  rest, parts = _curve(tmp_path / "parts", STUDENT)
  # The step in which it is wished for is still made.
  assert (len(first), len(rest)) == (2, 4)
  np.testing.assert_allclose(first + rest, whole, rtol=1e-5)
  np.testing.assert_allclose(parts["bias"], params["bias"], rtol=1e-4)


def test_rows_of_a_batch_that_does_not_divide_are_refused(mesh):
  assert data_parallel.rows(mesh, 6) == slice(0, 6)  # all are of this host
  assert data_parallel.rows(None, 5) == slice(0, 5)
  with refused("5 frames", "2 devices"):
    data_parallel.rows(mesh, 5)

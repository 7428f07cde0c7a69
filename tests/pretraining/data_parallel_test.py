"""Training over devices: the steps of one device, on rows of the batch each."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ojd.errors import UserError
from ojd.models import student as student_lib
from ojd.pretraining import data_parallel, trainer
from tests.reference import parallel_training, small_run, tiny_student
from tests.reference.compare import close
from tests.reference.parallel_training import make_batch

RECIPE = parallel_training.RECIPE._replace(num_steps=6)
STUDENTS = {
  "tiny": tiny_student.make(),
  "small": student_lib.from_linen(small_run.SmallNet(3)),
}


@pytest.fixture
def mesh():
  return data_parallel.mesh_of(jax.devices()[:2])


def _curve(folder, student, **more):
  folder.mkdir(exist_ok=True)
  losses = []
  params = trainer.train(
    *(student, RECIPE, {}, make_batch, folder),
    report_fn=lambda made: losses.append(made.loss),
    **more,
  )
  return losses, jax.device_get(params)


@pytest.mark.parametrize("name", STUDENTS)
def test_loss_curve_and_weights_are_those_of_one_device(name, mesh, tmp_path):
  losses, params = _curve(tmp_path / "one", STUDENTS[name])
  spread_losses, spread = _curve(tmp_path / "two", STUDENTS[name], mesh=mesh)
  assert len(losses) == 6 and losses[-1] != losses[0]
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
  student, tx = STUDENTS["small"], trainer.make_tx(RECIPE)
  update = lambda state, *batch: trainer.update(
    student, tx, state, *batch, data_parallel.mean
  )
  state = data_parallel.replicate(mesh, trainer.init(student, RECIPE))
  given = np.zeros(2, np.int32), make_batch(0)
  placed = data_parallel.shard(mesh, P(data_parallel.AXIS), given)
  program = data_parallel.program(mesh, update)
  text = program.lower(state, *placed).compile().as_text()
  found = re.findall(r"(all-reduce|all-gather|all-to-all)(?:-start)?\(", text)
  assert set(found) == {"all-reduce"}


def test_stopped_training_goes_on_over_any_devices(mesh, tmp_path):
  student = STUDENTS["tiny"]
  whole, params = _curve(tmp_path / "one", student)
  wishes = iter([False, True])
  first, _ = _curve(
    tmp_path / "parts", student, mesh=mesh, should_stop=lambda: next(wishes)
  )
  rest, parts = _curve(tmp_path / "parts", student)
  # The step in which it is wished for is still made.
  assert (len(first), len(rest)) == (2, 4)
  np.testing.assert_allclose(first + rest, whole, rtol=1e-5)
  np.testing.assert_allclose(parts["bias"], params["bias"], rtol=1e-4)


def test_rows_of_a_batch_that_does_not_divide_are_refused(mesh):
  assert data_parallel.rows(mesh, 6) == slice(0, 6)  # all are of this host
  assert data_parallel.rows(None, 5) == slice(0, 5)
  with pytest.raises(UserError, match="5 frames .* 2 devices"):
    data_parallel.rows(mesh, 5)

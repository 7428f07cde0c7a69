"""Training beforehand: the loss of a batch, the steps, and resuming."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import losses
from ojd.errors import UserError
from ojd.pretraining import trainer
from ojd.types import Labels
from tests.reference import host_loop, tiny_student
from tests.reference.compare import close, equal
from tests.reference.parallel_training import make_batch

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


def test_learns_and_does_not_compile_twice(tmp_path):
  recipe = RECIPE._replace(num_steps=250, learning_rate=0.05)
  reports, traces = [], []

  def apply(params, frame):
    traces.append(frame.shape)
    return STUDENT.apply(params, frame)

  student = STUDENT._replace(apply=apply)
  _train(tmp_path, recipe, student, report_fn=reports.append)
  assert [report.step for report in reports] == list(range(250))
  assert len(traces) == 1
  mean = lambda part: np.mean([report.loss for report in part])
  assert mean(reports[-5:]) < 0.5 * mean(reports[:5])


def test_interrupted_training_ends_with_the_same_weights(tmp_path):
  for name in ("whole", "parts"):
    (tmp_path / name).mkdir()
  whole = _train(tmp_path / "whole", save_every=2)
  stops = iter([False, False, False, True])
  _train(tmp_path / "parts", save_every=2, should_stop=lambda: next(stops))
  rest = []
  parts = _train(tmp_path / "parts", save_every=2, report_fn=rest.append)
  assert rest[0].step == 3  # nothing is lost, wherever it stops
  equal(whole, parts)


def test_a_folder_of_another_recipe_or_a_broken_state_is_refused(tmp_path):
  _train(tmp_path)
  with pytest.raises(UserError, match="batch=4, not 3"):
    _train(tmp_path, RECIPE._replace(batch=3))
  (tmp_path / "training.msgpack").write_bytes(b"\x01\x02")
  with pytest.raises(UserError, match="cannot be read") as error:
    _train(tmp_path)
  assert "\n" not in str(error.value)

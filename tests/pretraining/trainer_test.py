"""Training beforehand: the loss of a batch, the steps, and resuming."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import losses
from ojd.errors import UserError
from ojd.pretraining import trainer
from ojd.types import Labels
from tests.reference import tiny_student

RECIPE = trainer.Recipe(num_steps=6, batch=2, height=32, width=32)
STUDENT = tiny_student.make()


def _batch(step):
  rng = np.random.default_rng(step)
  classes = rng.integers(0, 3, (2, 32, 32)).astype(np.uint8)
  frames = (100 * classes[..., None]).repeat(3, -1).astype(np.uint8)
  return frames, Labels(classes, np.ones(classes.shape, np.float32))


def test_loss_of_a_batch_is_the_mean_of_its_frames():
  state = trainer.init(STUDENT, RECIPE)
  frames, labels = _batch(0)
  singles = [
    losses.weighted_cross_entropy(
      STUDENT.apply(state.params, frames[i]),
      Labels(labels.classes[i], labels.weights[i]),
    )
    for i in range(2)
  ]
  whole = trainer.batch_loss(STUDENT, state.params, frames, labels)
  np.testing.assert_allclose(whole, np.mean(singles), rtol=1e-6)


@pytest.mark.parametrize("is_jitted", [True, False])
def test_a_step_is_adamw_on_kernels_alone(is_jitted):
  recipe = RECIPE._replace(weight_decay=0.5)
  state = trainer.init(STUDENT, recipe)
  tx = trainer.make_tx(recipe)
  frames, labels = _batch(0)
  step = lambda state: trainer.update(STUDENT, tx, state, frames, labels)
  step = jax.jit(step) if is_jitted else step
  second, _ = step(step(state)[0])
  # The first rate is 0, the second a 200th of the highest; Adam's first
  # direction of an unchanged gradient is its sign.
  grads = jax.grad(lambda p: trainer.batch_loss(STUDENT, p, frames, labels))(
    state.params
  )
  rate = recipe.learning_rate / 200
  bias = state.params["bias"] - rate * np.sign(grads["bias"])
  np.testing.assert_allclose(second.params["bias"], bias, atol=1e-7)
  old = state.params["kernel"]
  kernel = old - rate * (np.sign(grads["kernel"]) + 0.5 * old)
  np.testing.assert_allclose(second.params["kernel"], kernel, atol=1e-7)


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
  state = trainer.init(STUDENT, RECIPE)
  frames, labels = _batch(0)
  broken = Labels(labels.classes, np.full(labels.weights.shape, np.inf, "f4"))
  tx = trainer.make_tx(RECIPE)
  after, _ = trainer.update(STUDENT, tx, state, frames, broken)
  assert int(after.step) == 1
  for kept, old in zip(after[:2], state[:2], strict=True):
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, kept, old)))


def test_learns_and_does_not_compile_twice(tmp_path):
  recipe = RECIPE._replace(num_steps=250, learning_rate=0.05)
  reports, traces = [], []

  def apply(params, frame):
    traces.append(frame.shape)
    return STUDENT.apply(params, frame)

  student = STUDENT._replace(apply=apply)
  trainer.train(student, recipe, {}, _batch, tmp_path, report_fn=reports.append)
  assert [report.step for report in reports] == list(range(250))
  assert len(traces) == 1
  assert reports[-1].loss < 0.5 * reports[0].loss


def test_interrupted_training_ends_with_the_same_weights(tmp_path):
  run = lambda folder, **more: trainer.train(
    STUDENT, RECIPE, {"data": "x"}, _batch, folder, save_every=2, **more
  )
  for name in ("whole", "parts"):
    (tmp_path / name).mkdir()
  whole = run(tmp_path / "whole")
  stops = iter([False, False, False, True])
  run(tmp_path / "parts", should_stop=lambda: next(stops))
  rest = []
  parts = run(tmp_path / "parts", report_fn=rest.append)
  assert rest[0].step == 3  # nothing is lost, wherever it stops
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
    np.testing.assert_array_equal(a, b)


def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
  trainer.train(STUDENT, RECIPE, {}, _batch, tmp_path)
  with pytest.raises(UserError, match="batch=2, not 3"):
    trainer.train(STUDENT, RECIPE._replace(batch=3), {}, _batch, tmp_path)


def test_a_broken_state_is_one_line(tmp_path):
  trainer.train(STUDENT, RECIPE, {}, _batch, tmp_path)
  (tmp_path / "training.msgpack").write_bytes(b"\x01\x02")
  with pytest.raises(UserError, match="cannot be read") as error:
    trainer.train(STUDENT, RECIPE, {}, _batch, tmp_path)
  assert "\n" not in str(error.value)

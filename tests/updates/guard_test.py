"""Gradients that are not finite, passed over and counted."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ojd import updates
from ojd.models.student import Student
from ojd.updates import average, guard, rehearsal
from tests.reference import layered_student, tiny_student

STUDENT = tiny_student.make()
RATE = 0.1


def _torn():
  """A student whose logits are finite and whose first gradient is not."""

  def apply(params, frame):
    nothing = jnp.sqrt(jnp.sum(jnp.square(params["bias"])))
    return STUDENT.apply(params, frame) + nothing

  return Student(STUDENT.init, apply, STUDENT.num_classes)


def _equal(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def _close(ours, theirs):
  """But for the rounding of programs that were compiled apart."""
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
    ours,
    theirs,
  )


@pytest.mark.parametrize("jit", [False, True])
def test_nothing_changes_and_all_is_counted(jit):
  student = _torn()
  for name, num_undone in (("sgd", 1), ("nonfinite_guard", 3)):
    tx = updates.VARIANTS[name].factory(RATE)
    params, opt_state = layered_student.begin(tx, student)
    learn = layered_student.adapting(tx, student, jit=jit)
    result = learn(params, opt_state, 0)
    assert int(result.num_updates) == 0
    assert int(result.num_rolled_back) == num_undone
    assert np.isfinite(result.grad_norm) and np.isfinite(result.loss)
    _equal(result.params, params)
  _equal(result.opt_state.inner, opt_state.inner)
  assert int(result.opt_state.num_skipped) == 3
  # Counted from the key frame's beginning, not from the run's.
  again = learn(result.params, result.opt_state, 1)
  assert int(again.num_rolled_back) == 3
  assert int(again.opt_state.num_skipped) == 6


def test_finite_gradients_are_those_of_sgd():
  results = []
  for name in ("sgd", "nonfinite_guard"):
    tx = updates.VARIANTS[name].factory(RATE)
    learn = layered_student.adapting(tx, STUDENT)
    results.append(learn(*layered_student.begin(tx, STUDENT), 0))
  ours, theirs = results[1], results[0]
  _close(ours.params, theirs.params)
  _close(ours.opt_state.inner, theirs.opt_state)
  assert int(ours.num_updates) == 3
  assert int(ours.num_rolled_back) == 0


@pytest.mark.parametrize(
  "inner",
  [
    updates.adam(RATE),
    average.averaged(updates.sgd(RATE)),
    rehearsal.rehearsing(updates.sgd(RATE)),
  ],
)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_any_inner_step_goes_on_as_if_it_had_not_been(inner, value):
  """Of good, bad and good gradients the second leaves no trace."""
  step, alone = guard.guarded(inner), updates.as_step(inner)
  params, state = layered_student.begin(step, STUDENT)
  moving, held = step.begin(state)
  other, other_held = alone.begin(state.inner)
  good = jax.tree.map(jnp.ones_like, params)
  bad = good | {"bias": good["bias"].at[0, 0, 0].set(value)}
  ours = theirs = params
  for grads in (good, bad, good):
    steps, moving = step.update(grads, moving, ours, held)
    ours = optax.apply_updates(ours, steps)
    if grads is good:
      steps, other = alone.update(grads, other, theirs, other_held)
      theirs = optax.apply_updates(theirs, steps)
  _equal(ours, theirs)
  plain = lambda x: (
    jax.random.key_data(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    else x
  )
  _equal(jax.tree.map(plain, moving.inner), jax.tree.map(plain, other))
  assert int(step.num_skipped(moving)) == 1

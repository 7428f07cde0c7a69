"""The adapt loop and the scan, against the same steps taken one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ojd import distill, losses, metrics, systems, updates
from ojd.tasks.segmentation import classify
from ojd.types import Labels
from tests.reference import compare, host_loop, scenes, tiny_student
from tests.reference.compare import equal

STUDENT = tiny_student.make()
TX = updates.sgd(learning_rate=0.3)
close = functools.partial(compare.close, atol=1e-6)


def _first_frame():
  frames, labels = scenes.coloured_squares(1)
  params = STUDENT.init(jax.random.key(0), frames[0])
  return params, TX.init(params), frames[0], host_loop.labels_of(labels, 0)


def _loss(params, frame, labels):
  return losses.weighted_cross_entropy(STUDENT.apply(params, frame), labels)


def _accuracy(params, frame, labels):
  classes = classify(STUDENT.apply(params, frame))
  counts = labels.weights > 0
  return metrics.frame_miou(
    labels.classes, classes, num_classes=STUDENT.num_classes, counts=counts
  )


def _adapt_by_hand(
  params, opt_state, frame, labels, *, a_thresh, u_max, u_min=0
):
  """Lines 5-13 of Algorithm 1 as a Python loop."""
  u, accuracies = 0, []
  while True:
    accuracies.append(float(_accuracy(params, frame, labels)))
    if u >= u_max or (accuracies[-1] >= a_thresh and u >= u_min):
      return params, opt_state, u, accuracies
    grads = jax.grad(_loss)(params, frame, labels)
    steps, opt_state = TX.update(grads, opt_state, params)
    params = optax.apply_updates(params, steps)
    u += 1


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
  ("a_thresh", "u_max", "u_min"),
  [
    (1.0, 8, 0),
    (0.6, 8, 0),
    (0.6, 50, 0),
    (0.0, 8, 0),
    (0.0, 8, 2),
    (0.6, 0, 0),
    (1.0, 1, 1),
  ],
)
def test_adapt_equals_updates_one_by_one(a_thresh, u_max, u_min, jit):
  params, opt_state, frame, labels = _first_frame()
  limits = {"a_thresh": a_thresh, "u_max": u_max, "u_min": u_min}
  adapt = functools.partial(distill.adapt, STUDENT, TX, **limits)
  result = (jax.jit(adapt) if jit else adapt)(params, opt_state, frame, labels)
  expected = _adapt_by_hand(params, opt_state, frame, labels, **limits)
  assert int(result.num_updates) == expected[2]
  assert int(result.num_rolled_back) == 0
  close((result.params, result.opt_state), expected[:2])
  mious = result.miou_before, result.miou_after
  close(mious, (expected[3][0], expected[3][-1]))
  close(result.loss, _loss(result.params, frame, labels))
  classes = classify(STUDENT.apply(result.params, frame))
  np.testing.assert_array_equal(result.answer, classes)
  if u_max == 50:  # the threshold stops between the first and the last
    assert 0 < int(result.num_updates) < 50
    assert result.miou_before < 0.6 <= result.miou_after


def test_update_that_is_not_finite_is_undone():
  params, _, frame, labels = _first_frame()
  # The third step is infinite; the two before it are as usual.
  steps = lambda count: jnp.where(count < 2, -0.3, jnp.inf)
  tx = optax.chain(optax.trace(0.9), optax.scale_by_schedule(steps))
  result, two = (
    distill.adapt(
      *(STUDENT, tx, params, tx.init(params), frame, labels),
      a_thresh=1.0,
      u_max=u_max,
    )
    for u_max in (8, 2)
  )
  assert int(result.num_updates) == 2
  assert int(result.num_rolled_back) == 1
  kept = lambda x: (x.params, x.opt_state, x.grad_norm)
  close(kept(result), kept(two))
  np.testing.assert_array_equal(result.answer, two.answer)
  assert np.isfinite(result.loss)


def test_frame_that_nobody_asks_about_changes_nothing():
  params, opt_state, frame, labels = _first_frame()
  nothing = Labels(np.full_like(labels.classes, 255), 0 * labels.weights)
  result = distill.adapt(
    STUDENT, TX, params, opt_state, frame, nothing, a_thresh=0.9, u_max=8
  )
  assert int(result.num_updates) == 0  # no object on either side: accurate
  assert float(result.miou_after) == 1.0
  close(result.params, params)


@pytest.mark.parametrize(
  ("axis_name", "make"),
  [(None, systems.jit), ("lane", systems.jit), ("lane", systems.jit_plus)],
)
def test_lanes_are_single_scans(axis_name, make):
  """Also where one lane learns on frames that others do not learn on."""
  frames, labels = scenes.coloured_squares(30)

  def run(a_thresh, rate, delta_min, seed, **given):
    tx = updates.sgd(learning_rate=rate)
    constants = {"a_thresh": a_thresh, "delta_min": delta_min}
    system = make(STUDENT, tx, delta_max=16, u_max=4, **constants)
    return host_loop.scan(system, frames, labels, seed, **given)

  # One value that differs from the first lane's each, and all of them.
  values = (
    jnp.array([0.9, 0.5, 0.9, 0.9, 0.9, 0.2]),
    jnp.array([0.3, 0.3, 0.1, 0.3, 0.3, 0.2]),
    jnp.array([2, 2, 2, 1, 2, 3]),
    jnp.array([0, 0, 0, 0, 1, 7]),
  )
  lane = functools.partial(run, axis_name=axis_name)
  lanes = jax.jit(jax.vmap(lane, axis_name=axis_name or "any"))(*values)
  alone, kernels = jax.jit(run), set()
  for i in range(6):
    mine = jax.tree.map(lambda x, i=i: x[i], lanes)
    single = alone(*(x[i] for x in values))
    close(mine, single, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(mine[1][0], single[1][0])
    kernels.add(float(single[0].params["kernel"].sum()))
  # Each value matters, but for one of them to `jit_plus`.
  assert len(kernels) == 6 - (make is systems.jit_plus)


def test_scan_in_two_parts_is_one_scan():
  frames, labels = scenes.coloured_squares(24)
  system = systems.jit(STUDENT, TX, delta_min=2, u_max=3)
  first = system.init(jax.random.key(0), frames[0])
  cut = lambda part: (frames[part], jax.tree.map(lambda x: x[part], labels))
  scan = jax.jit(functools.partial(distill.scan_stream, system))
  whole, (classes, infos) = scan(first, *cut(slice(None)))
  middle, (before, _) = scan(first, *cut(slice(0, 12)))
  end, (after, late) = scan(middle, *cut(slice(12, None)), t=12)
  parts = np.concatenate([before, after]), late.num_updates
  equal((classes, infos.num_updates[12:]), parts)
  equal(whole, end)

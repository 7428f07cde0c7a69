"""`jit_plus` beside `jit`: each of its parts, and none of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import systems, updates
from tests.reference import host_loop, scenes, tiny_student
from tests.reference.compare import close

STUDENT = tiny_student.make()
TX = updates.sgd(learning_rate=0.3)
CONSTANTS = dict(a_thresh=0.7, delta_min=2, delta_max=16, u_max=4)
# What makes it `jit`.
PLAIN = dict(
  pre_update_schedule=False, target_margin=0.0, step_scale=0.0, stride_scale=1.0
)


def _jit(tx=TX, **options):
  return systems.jit(STUDENT, tx, **CONSTANTS | options)


def _plus(tx=TX, **options):
  return systems.jit_plus(STUDENT, tx, **CONSTANTS | PLAIN | options)


def _first(system):
  """-> the state after one key frame, and its info."""
  state, _, info = host_loop.first(system, *scenes.coloured_squares(1))
  return state, info


@pytest.mark.parametrize("jit", [False, True])
def test_without_extras_it_is_jit(jit):
  stream = scenes.coloured_squares(40 if jit else 6)
  ours, theirs = (
    host_loop.play(system, *stream, jit=jit) for system in (_plus(), _jit())
  )
  close(tuple(ours), tuple(theirs), 1e-6, 0)


def test_stride_follows_the_accuracy_before_the_updates():
  """A student that learns each frame by heart still asks again soon."""
  for is_before, stride in ((False, 4), (True, 2)):
    system = _plus(pre_update_schedule=is_before, a_thresh=0.5, u_max=30)
    state, info = _first(system)
    assert info.miou_before < 0.5 < info.miou_after
    assert info.stride == state.schedule.stride == stride
    # Of a frame that it knows already, both think well.
    (frame,), labels = scenes.coloured_squares(1)
    _, _, info = system.learn(state, frame, host_loop.labels_of(labels, 0))
    assert info.num_updates == 0 and info.stride == 2 * stride


@pytest.mark.parametrize(
  ("delta_min", "factor", "least"),
  [(2, 1.5, 3), (8, 1.5, 12), (16, 1.5, 24), (8, 1.25, 10)],
)
def test_stride_scale_is_of_the_least_stride_and_of_the_most_updates(
  delta_min, factor, least
):
  system = _plus(
    updates.sgd(learning_rate=1e-4),
    **dict(stride_scale=factor, delta_min=delta_min, u_max=8, a_thresh=1.0),
  )
  _, info = _first(system)
  assert int(info.stride) == least
  assert int(info.num_updates) == round(8 * factor)
  begin = host_loop.begin(system, np.zeros((16, 20, 3), np.uint8))
  assert int(system.next_key(begin._replace(t=jnp.asarray(1)))) == least


def test_target_margin_goes_on_after_the_threshold():
  """Half the way from 0.6 to 1 is 0.8."""
  for margin, threshold in ((0.0, 0.6), (0.5, 0.8)):
    _, info = _first(_plus(target_margin=margin, a_thresh=0.6, u_max=60))
    _, expected = _first(_jit(a_thresh=threshold, u_max=60))
    assert info.num_updates == expected.num_updates
    assert info.miou_after >= threshold


def test_step_scale_lengthens_every_step_by_what_was_wrong_at_first():
  sgd = lambda rate: updates.sgd(learning_rate=rate)
  state, info = _first(_plus(sgd(0.1), step_scale=4.0, a_thresh=1.0))
  assert int(info.num_updates) == 4
  assert 0 < info.miou_before < info.miou_after
  rate = 0.1 * (1 + 4 * (1 - float(info.miou_before)))
  expected, _ = _first(_jit(sgd(rate), a_thresh=1))
  close(state.params, expected.params)


def test_thresholds_and_strides_in_one_call():
  stream = scenes.coloured_squares(24)

  def run(a_thresh, delta_min):
    options = dict(a_thresh=a_thresh, delta_min=delta_min)
    system = systems.jit_plus(STUDENT, TX, **CONSTANTS | options)
    _, (_, infos) = host_loop.scan(system, *stream)
    return infos.is_key, infos.stride

  values = jnp.array([0.3, 0.9]), jnp.array([2, 4])
  together = jax.jit(jax.vmap(run))(*values)
  for i in range(2):
    alone = jax.jit(run)(values[0][i], values[1][i])
    close([x[i] for x in together], list(alone), 0, 0)

"""The table of methods: presets, gradient steps, prices, what is refused."""

import jax
import numpy as np
import optax
import pytest

from ojd import costs as cost_model
from ojd import systems, updates
from ojd.models.student import from_linen
from ojd.types import Costs
from tests.reference import (
  host_loop,
  layered_student,
  scenes,
  small_run,
  tiny_student,
)
from tests.reference.compare import close

NAMES = [
  ":".join([name, *filter(None, [preset])])
  for name, method in systems.METHODS.items()
  for preset in ("", *method.presets)
]


@pytest.mark.parametrize("text", NAMES)
def test_every_name_makes_a_system(text):
  bound = systems.bind(text)
  assert str(bound) == text
  student, (frames, _) = layered_student.STUDENT, scenes.coloured_squares(1)
  if bound.name == "osvos":
    student = student._replace(num_classes=2)
  system = systems.make(
    bound, student, optax.sgd(0.1), fps=25.0, num_frames=None, trained=None
  )
  state = jax.eval_shape(system.init, jax.random.key(0), frames[0])
  _, answer = jax.eval_shape(system.predict, state, frames[0])
  assert answer.shape == frames[0].shape[:2]
  is_served = bound.name not in ("teacher", "copy_last", "flow")
  assert (system.serving is not None) == is_served
  if is_served:
    jax.eval_shape(system.serving.params, state)


@pytest.mark.parametrize(
  "text",
  [
    "jit:delta_min=2:norm=key_frame",
    "jit:delta_min=2:delta_max=16:a_thresh=0.5",
    "jit_plus:a_thresh=0.5",
    "shadowtutor:a_thresh=0.875:delta_min=2:delta_max=16",
    "ams:sampling_rate=2:train_period=1:iterations=2:batch_size=2",
    "copy_last:stride=3",
  ],
)
def test_a_scan_equals_the_host_loop(text):
  frames, labels = scenes.coloured_squares(24)
  student = from_linen(small_run.SmallNet(num_classes=3))
  tx = updates.adam(learning_rate=0.05)
  system = systems.create(text, student, tx, fps=4.0, num_frames=24)
  state, (answers, infos) = host_loop.compiled_scan(system, frames, labels)
  found = host_loop.play(system, frames, labels)
  np.testing.assert_array_equal(answers, found.answers)
  assert np.flatnonzero(infos.is_key).tolist() == found.keys
  for name in ("num_updates", "num_rolled_back", "stride"):
    values = np.asarray(getattr(infos, name))[found.keys]
    assert values.tolist() == found.of(name)
  # Between key frames the stride is that of the last one.
  since = np.cumsum(infos.is_key) - 1
  assert infos.stride.tolist() == np.array(found.of("stride"))[since].tolist()
  params = lambda x: x.params if system.serving else x.answer
  close(params(state), params(found.state), 1e-4, 1e-5)


@pytest.mark.parametrize(
  ("text", "stride"),
  [("copy_last:stride=5", 5), ("copy_last", 8), ("teacher", 1),
   ("flow:stride=5", 5), ("flow:slow", 8), ("flow:fast", 16),
   ("flow:fast:stride=3", 3)],
)  # fmt: skip
def test_presets_set_the_stride_and_options_win(text, stride):
  system = systems.create(text, tiny_student.make(), None)
  found = host_loop.play(system, *scenes.coloured_squares(20))
  assert found.keys == list(range(0, 20, stride))


@pytest.mark.parametrize(
  ("text", "update"),
  [
    ("jit", "sgd"),
    ("jit_flow:plus", "fast_head"),
    ("shadowtutor", "partial_adam"),
    ("shadowtutor:full", "adam:learning_rate=0.01"),
    ("ams:one_time", "adam"),
    ("skip:base=frozen", None),
  ],
)
def test_methods_have_steps_of_their_own(text, update):
  assert systems.update_of(systems.bind(text)) == update


def test_prices_are_those_of_the_papers():
  costs = lambda text: systems.costs_of(systems.bind(text))
  speedup = lambda name, *work: cost_model.paper_speedup(*work, costs(name))
  # Table 2: 2.2 times on 12.5% of the frames, 3.2 times on 6.2%.
  for name, stride, factor in (("flow:slow", 8, 2.2), ("flow:fast", 16, 3.2)):
    found = speedup(name, 16_000, 16_000 // stride, 0)
    assert found == pytest.approx(factor, abs=0.005)
  # An hour of training for two minutes, and the teacher on 120 frames.
  found = 300 * 3_600 / speedup("osvos", 3_600, 120, 5_760)
  assert found == 3_600e3 + 120 * 300
  assert costs("jit") == Costs(300, 7, 30, 0)
  assert costs("jit_flow:plus").predict == 120
  assert speedup("teacher", 1000, 1000, 0) == 1
  assert speedup("copy_last", 1000, 125, 0) == 8
  assert speedup("offline_oracle", 1000, 0, 0) == pytest.approx(300 / 7)

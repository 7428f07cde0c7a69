"""Adam whose head is fast, beside Adam."""

import jax
import jax.numpy as jnp
import numpy as np

from ojd import updates


def test_steps_are_those_of_adam_and_ten_times_as_long_in_the_head():
  frame = np.zeros((32, 32, 3), np.uint8)
  names = ("conv1", "enc2", "decoder_conv2", "logits", "logits_of_old")
  layer = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
  params = {name: dict(layer) for name in names}
  grads = jax.tree.map(lambda x: jnp.cos(x + 1), params)
  ours, adam = updates.VARIANTS["fast_head"].factory(0.01), updates.adam(0.01)
  state, expected_state = updates.start(ours, params, frame), adam.init(params)
  for _ in range(2):
    moving, held = ours.begin(state)
    steps, moving = ours.update(grads, moving, params, held)
    state = ours.end(moving, held, frame, None)
    expected, expected_state = adam.update(grads, expected_state, params)
    for name, layer in steps.items():
      speed = 10 if name == "logits" else 1
      for step, other in zip(
        jax.tree.leaves(layer), jax.tree.leaves(expected[name]), strict=True
      ):
        assert jnp.abs(step).max() > 0
        np.testing.assert_allclose(step, speed * other, rtol=1e-6)

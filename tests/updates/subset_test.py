"""Steps of some layers: the others stay, and are not differentiated."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import distill, updates
from ojd.errors import UserError
from ojd.models import pretrained
from tests.reference import layered_student, tiny_student

DECODER = {"dec1", "dec2", "decoder_conv1", "logits"}
LAYERS = {
  "head": {"logits"},
  "partial": DECODER - {"dec1"},
  "decoder": DECODER,
}
# Passes through the five convolutions, kernel and input gradients: an input
# gradient is needed of every layer behind the first that trains.
PRODUCTS = {
  "sgd": 5 + 5 + 4,
  "decoder": 5 + 4 + 3,
  "partial": 5 + 3 + 2,
  "head": 5 + 1 + 0,
  "norm_only": 5 + 0 + 4,
}


def _trains(name, leaf):
  if name == "norm_only":
    return leaf.split("/")[1] == "norm"
  return leaf.split("/")[0] in LAYERS[name]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", [*LAYERS, "norm_only"])
def test_only_those_move(name, jit):
  tx = updates.VARIANTS[name].factory(0.05)
  params, opt_state = layered_student.begin(tx)
  learn = layered_student.adapting(tx, jit=jit)
  result = learn(params, opt_state, 0)
  assert int(result.num_updates) == 3
  before, after = map(pretrained.flatten, (params, result.params))
  assert before.keys() == after.keys()
  for leaf in before:
    if _trains(name, leaf):
      assert np.any(before[leaf] != after[leaf]), leaf
    else:
      np.testing.assert_array_equal(before[leaf], after[leaf])
  # Moments are kept of nothing else.
  size = sum(x.size for n, x in before.items() if _trains(name, n))
  assert sum(x.size for x in jax.tree.leaves(result.opt_state)) == size


def test_first_step_of_what_moves_is_that_of_all():
  moved = {}
  for name in ("sgd", "partial", "norm_only"):
    tx = updates.VARIANTS[name].factory(0.05)
    learn = layered_student.adapting(tx, num_updates=1)
    result = learn(*layered_student.begin(tx), 0)
    moved[name] = pretrained.flatten(result.params)
  for name in ("partial", "norm_only"):
    for leaf in moved["sgd"]:
      if _trains(name, leaf):
        np.testing.assert_allclose(
          moved[name][leaf], moved["sgd"][leaf], rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("name", PRODUCTS)
def test_backward_pass_ends_at_the_first_layer_that_trains(name):
  tx = updates.VARIANTS[name].factory(0.05)
  params, opt_state = layered_student.begin(tx)
  frame, labels = layered_student.FRAMES[0], layered_student.labels_of(0)
  adapt = lambda params, opt_state, u_max: distill.adapt(
    *(layered_student.STUDENT, tx, params, opt_state, frame, labels),
    a_thresh=1.1,
    u_max=u_max,
  )
  text = jax.jit(adapt).lower(params, opt_state, jnp.int32(3)).compile()
  products = re.findall(r"= \S+ (?:convolution|dot)\(", text.as_text())
  assert len(products) == PRODUCTS[name]


def test_student_without_such_layers_is_refused():
  student, tx = tiny_student.make(), updates.VARIANTS["partial"].factory(0.1)
  with pytest.raises(UserError, match="--update=partial: this student has"):
    layered_student.begin(tx, student)

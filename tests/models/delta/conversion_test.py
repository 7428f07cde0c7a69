"""A converted network beside the network itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd.models import describe, mobilenet_seg
from ojd.models.delta import changes, conversion
from ojd.models.delta.conversion import convert
from ojd.models.student import from_linen
from tests.reference import (
  delta_clips,
  layered_student,
  small_run,
  tiny_student,
)
from tests.reference.compare import close
from tests.reference.refusals import refused

FRAMES = delta_clips.clip()


@pytest.fixture(autouse=True)
def _few_blocks(monkeypatch):
  """Of MobileNetV2 one of each kind: what strides, dilates and is added."""
  stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 96, 1, 2), (6, 160, 2, 2))
  monkeypatch.setattr(mobilenet_seg, "STAGES", (*stages, (6, 320, 1, 2)))


@pytest.mark.parametrize("name", delta_clips.NETWORKS)
def test_exact_change_gives_the_networks_own_answers(name):
  """In double precision: norms over six pixels blow up what is rounded."""
  student = delta_clips.student(name)
  net = convert(student, changes.from_key(changes.full()))
  with jax.enable_x64(True):
    frames = FRAMES[:3].astype(np.float64)
    params = delta_clips.params(student, net, np.float64)
    every = jax.jit(jax.vmap(student.apply, (None, 0)))
    expected = every(params["model"], frames)
    scale = np.abs(expected[0]).max()
    logits, cache = jax.jit(net.apply_key)(params, frames[0])
    close(logits, expected[0], 0, 1e-9 * scale)
    step = jax.jit(net.apply_delta)
    for frame, plain in zip(frames[1:], expected[1:], strict=True):
      between = step(params, cache, frame)
      cache = between.cache
      close(between.logits, plain, 0, 1e-9 * scale)
    assert step._cache_size() == 1
    assert np.abs(expected[1] - expected[0]).max() > 0.05 * scale


EXACT = changes.from_key(changes.same())


@pytest.mark.parametrize("name", delta_clips.NETWORKS)
def test_work_of_sites_is_the_layer_tables_and_some_stay(name):
  """The first, the last and the depthwise ones."""
  student = delta_clips.student(name)
  rows = describe.layer_table(delta_clips.NETWORKS[name], 32, 48)
  rows = [(r.name, r.macs) for r in rows if r.macs]
  found = conversion.trace(student, 32, 48)
  assert [(s.name, s.macs) for s in found] == rows
  names = [name for name, _ in rows if "depthwise" not in name]
  converted = convert(student, EXACT).converted
  assert [conv.name for conv in converted] == names[1:-1]
  assert (len(names) < len(rows)) == (name == "mobilenet_v2")


def test_gradient_of_an_exact_frame_is_the_plain_one_through_both_frames():
  """d/dparams of f(x_t) is the same by z_key + W (x_t - x_key)."""
  student = layered_student.STUDENT
  frames = layered_student.FRAMES
  net = convert(student, EXACT)
  model = delta_clips.params(student, net)["model"]
  weights = np.random.default_rng(0).standard_normal((16, 20, 3))

  def by_delta(model):
    params = {"model": model, "delta": {}}
    _, cache = net.apply_key(params, frames[0])
    return jnp.sum(weights * net.apply_delta(params, cache, frames[1]).logits)

  plain = lambda model: jnp.sum(weights * student.apply(model, frames[1]))
  ours, theirs = (jax.jit(jax.grad(f))(model) for f in (by_delta, plain))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max() + 1e-5)


def test_bias_counted_twice_is_the_bias_added_once_more():
  student = delta_clips.student("shadow")
  net = convert(student, changes.from_key(changes.full(bias_twice=True)))
  params = delta_clips.params(student, net)
  # The same frame again: all that changes is the bias.
  path = net.converted[0].path
  own = conversion.at(params["model"], path)["bias"]
  assert np.array_equal(conversion.at(params["delta"], path)["bias"], own)

  @jax.jit
  def change(params):
    _, cache = net.apply_key(params, FRAMES[0])
    told = net.apply_delta(params, cache, FRAMES[0]).aux
    return conversion.at(told, path)["change"]

  found = change(params)
  close(found, np.broadcast_to(own, found.shape), 1e-7, 1e-6)
  once = convert(student, changes.from_key(changes.full()))
  without = jax.eval_shape(once.begin, jax.random.key(0), params["model"])
  assert "bias" not in conversion.at(without, path)


def test_half_precision_is_kept_but_for_the_logits():
  model = delta_clips.NETWORKS["jitnet"]
  net = convert(from_linen(model, "bfloat16"), changes.from_key(changes.pair()))

  def look():
    params = net.init(jax.random.key(0), FRAMES[0])
    _, cache = net.apply_key(params, FRAMES[0])
    return cache, net.apply_delta(params, cache, FRAMES[1])

  before, between = jax.eval_shape(look)
  for cache in (before, between.cache):
    assert {x.dtype for x in jax.tree.leaves(cache)} == {jnp.dtype("bfloat16")}
  assert between.logits.dtype == jnp.float32


def test_other_states_and_networks_are_refused():
  student, frames = layered_student.STUDENT, layered_student.FRAMES
  net = convert(student, EXACT)
  params = net.init(jax.random.key(0), frames[0])
  _, cache = jax.eval_shape(net.apply_key, params, frames[0])
  delta = lambda *x: jax.eval_shape(net.apply_delta, params, *x)
  small = from_linen(small_run.SmallNet(3))
  for call, words in (
    (lambda: delta({}, frames[0]), "without dec1/conv"),
    (lambda: delta(cache, FRAMES[0]), "another network or size of frames"),
    (lambda: convert(small, EXACT), "delta: "),
    (lambda: convert(tiny_student.make(), EXACT), "delta: the student is no "),
  ):
    with refused(words):
      call()

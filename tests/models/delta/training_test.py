"""Training of changes beside sums made by hand; the files of what it made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from ojd import losses
from ojd.errors import UserError
from ojd.models import pretrained
from ojd.models.delta import changes, conversion, files, skip, training
from ojd.models.delta.conversion import convert
from ojd.pretraining import trainer
from ojd.types import Labels
from tests.reference import delta_clips, layered_student
from tests.reference.compare import equal
from tests.reference.refusals import refused

STUDENT, FRAMES = layered_student.STUDENT, layered_student.FRAMES
NET = convert(STUDENT, training.gated(changes.full(), changes.pair(gamma=4)))
PAIR = FRAMES[:2]
RECIPE = training.Recipe(num_steps=30, model_rate=1e-3, delta_rate=1e-2)


@pytest.fixture(scope="module")
def params():
  return delta_clips.params(STUDENT, NET)


def _labels():
  return layered_student.labels_of(1)


def test_terms_are_those_made_by_hand(params):
  key = jax.random.key(0)

  @jax.jit
  def look(params):
    _, cache = NET.apply_key(params, PAIR[0])
    _, target = NET.apply_key(params, PAIR[1])
    between = NET.apply_delta(params, cache, PAIR[1], key)
    terms = training.pair_losses(NET, params, PAIR, _labels(), key)
    return cache, target, between, terms

  cache, target, between, terms = look(params)
  squares, is_open, work = [], [], []
  for conv in NET.converted:
    z = [conversion.at(c, conv.path)["kept"].z for c in (cache, target)]
    told = conversion.at(between.aux, conv.path)
    squares.append(np.square(told["change"] - (z[1] - z[0])).mean())
    is_open.append(float(told["open"]))
    work.append(conv.macs)
  np.testing.assert_allclose(terms.changes, np.mean(squares), rtol=1e-5)
  np.testing.assert_allclose(
    terms.cost, np.dot(is_open, work) / np.sum(work), rtol=1e-6
  )
  task = losses.weighted_cross_entropy(between.logits, _labels())
  np.testing.assert_allclose(terms.task, task, rtol=1e-5)
  with pytest.raises(UserError, match="a plain key frame"):
    training.pair_losses(NET, params, PAIR[:1], _labels(), key)


def test_total_counts_changes_for_a_third_and_groups_have_rates():
  terms = training.Losses(*map(jnp.float32, (2.0, 8.0, 0.5)))
  state = training.TrainState({}, (), jnp.float32(0), jnp.int32(0))
  total = lambda step, scale: training.total(
    RECIPE, state._replace(step=step, scale=jnp.float32(scale)), terms
  )
  np.testing.assert_allclose(total(0, 0), 2 + 0.01 + 0.05, rtol=1e-6)
  np.testing.assert_allclose(total(9, 0.25), 2 + 0.02 + 0.05, rtol=1e-6)
  np.testing.assert_allclose(total(10, 0.25), 2 + 0.05, rtol=1e-6)
  tx = training.make_tx(RECIPE._replace(momentum=0.0))
  ones = {"model": {"a": jnp.ones(2)}, "delta": {"b": jnp.ones(3)}}
  steps, _ = tx.update(ones, tx.init(ones), ones)
  np.testing.assert_allclose(steps["model"]["a"], -1e-3, rtol=1e-5)
  np.testing.assert_allclose(steps["delta"]["b"], -1e-2, rtol=1e-5)


def test_training_lowers_the_loss_and_goes_on_as_if_nothing_had_been(
  params, tmp_path
):
  recipe = RECIPE._replace(num_steps=15)
  batch = PAIR[None], Labels(*(x[None] for x in _labels()))
  begin = lambda: training.start(params, recipe)

  def step_fn(state, frames, labels):
    key = jax.random.fold_in(jax.random.key(1), state.step)
    state, terms = training.update(NET, recipe, state, frames, labels, key)
    return state, terms.task

  def train(name, stop_at):
    (tmp_path / name).mkdir(exist_ok=True)
    reports = []
    return trainer.carry_on(
      *(begin(), step_fn, {"a": 1}, lambda step: batch, tmp_path / name),
      num_steps=recipe.num_steps,
      report_fn=reports.append,
      should_stop=lambda: len(reports) == stop_at,
    ), reports

  whole, reports = train("whole", None)
  assert reports[-1].loss < reports[0].loss
  key = jax.random.fold_in(jax.random.key(1), 0)
  after, terms = training.update(NET, recipe, begin(), *batch, key)
  for scale in (float(after.scale), float(whole.scale)):
    assert scale == pytest.approx(1 / float(terms.changes), rel=1e-4)
  moved = jax.tree.map(lambda a, b: a - b, after.params, params)
  # A step of SGD: the gate's logit, by the cost's gradient and the task's.
  assert np.abs(moved["delta"]["dec1"]["conv"]["gate"]) > 0
  assert np.abs(moved["model"]["conv1"]["conv"]["kernel"]).max() > 0
  _, seen = train("parts", 2)
  again, rest = train("parts", None)
  steps = [[report.step for report in part] for part in (seen, rest)]
  assert steps == [[0, 1], list(range(2, 15))]
  equal(again, whole)


@pytest.mark.parametrize("logit", [-1.0, 0.6])
def test_draws_open_as_often_as_their_distributions_say(logit):
  """Two draws by the sigmoid; a single one by P(G >= -logit) of Gumbel's."""
  logits, key = jnp.full((40_000,), logit), jax.random.key(0)
  for is_logistic, expected in (
    (True, 1 / (1 + np.exp(-logit))),
    (False, 1 - np.exp(-np.exp(logit))),
  ):
    found = conversion.gumbel_sample(logits, key, is_logistic=is_logistic)
    assert set(np.unique(found).tolist()) <= {0.0, 1.0}
    assert found.mean() == pytest.approx(expected, abs=0.01)


def test_gradient_is_that_of_the_soft_sample():
  logits, key = jnp.linspace(-2, 2, 9), jax.random.key(3)

  def soft(logits):
    first, second = jax.random.split(key)
    noise = jax.random.gumbel(first, (9,)) - jax.random.gumbel(second, (9,))
    return jnp.sum(jax.nn.sigmoid((logits + noise) * 1.5))

  ours = jax.grad(lambda x: jnp.sum(conversion.gumbel_sample(x, key)))(logits)
  np.testing.assert_allclose(ours, jax.grad(soft)(logits), rtol=1e-5)


def test_open_and_closed_gates_are_their_branches_in_answer_and_work():
  full, pair = changes.full(), changes.pair(gamma=4)
  params = jax.jit(NET.init)(jax.random.key(0), FRAMES[0])

  def look(params, net):
    _, cache = net.apply_key(params, FRAMES[0])
    return net.apply_delta(params, cache, FRAMES[1])

  mixed = jax.jit(lambda params: look(params, NET))
  for i, conv in enumerate(NET.converted):
    gate = conversion.at(params["delta"], conv.path)
    gate["gate"] = jnp.float32(1 - 2 * (i % 2))
  found = mixed(params)
  is_open = [conv.name for conv in NET.converted[::2]]
  assert training.names_open(params["delta"], NET.converted) == is_open
  deployed = training.deploy(params["delta"], NET.converted)
  change_of = lambda conv: changes.of_weights(
    conversion.at(deployed, conv.path)
  )
  alone = convert(STUDENT, lambda conv: changes.from_key(change_of(conv)))
  params = {"model": params["model"], "delta": deployed}
  plain = jax.jit(lambda params: look(params, alone))(params)
  np.testing.assert_allclose(found.logits, plain.logits, atol=1e-4)
  np.testing.assert_allclose(found.gmac, plain.gmac, rtol=1e-6)
  macs = [conv.macs for conv in NET.converted]
  share = training.open_share(found.aux, NET.converted)
  np.testing.assert_allclose(share, sum(macs[::2]) / sum(macs), rtol=1e-6)
  # What is deployed costs the branch that is left.
  rows, by_full, by_pair = (
    changes.work_table(STUDENT, c, *FRAMES[0].shape[:2])
    for c in (change_of, full, pair)
  )
  assert [row.delta for row in rows] == [
    (a if a.name in is_open else b).delta
    for a, b in zip(by_full, by_pair, strict=True)
  ]


NAMES = ("background", "red", "green")


def _trained():
  """A student of which one layer has chosen a convolution like its own."""
  params = delta_clips.params(STUDENT, NET)
  params["delta"]["dec2"]["conv"]["gate"] = np.float32(1)
  delta = training.deploy(params["delta"], NET.converted)
  return {"model": params["model"], "delta": delta}


def _save(path, params, form="convolutions", **about):
  files.save(path, params, form, NAMES, about)
  return path


def _start(path):
  model, trained = files.split(pretrained.load(path))
  params = traverse_util.unflatten_dict(model.params, sep="/")
  return params, files.convert_trained(STUDENT, trained), trained


def test_file_gives_back_what_was_written(tmp_path):
  params = _trained()
  path = _save(tmp_path / "a.safetensors", params, steps=1)
  found = pretrained.load(path)
  assert found.class_names == NAMES
  assert found.about == {"steps": 1, "form": "convolutions"}
  model, _, trained = _start(path)
  equal({"model": model, "delta": trained.delta}, params)
  found = trained.delta
  assert "kernel" in found["dec2"]["conv"] and "first" in found["dec1"]["conv"]


def test_gates_and_their_blocks_are_read_back(tmp_path):
  rule = skip.skip(skip.by_gumbel(), block=4)
  net = convert(STUDENT, rule)
  params = delta_clips.params(STUDENT, net)
  path = _save(tmp_path / "a.safetensors", params, "skip", block=4)
  _, again, trained = _start(path)
  assert trained.form == "skip" and trained.block == 4
  _, cache = net.apply_key(params, FRAMES[0])
  found, expected = (
    jax.jit(n.apply_delta)(params, cache, FRAMES[1]) for n in (again, net)
  )
  np.testing.assert_array_equal(found.logits, expected.logits)
  assert found.gmac == expected.gmac


def test_other_files_have_no_changes_or_are_refused(tmp_path):
  flat = pretrained.flatten(_trained()["model"])
  given = pretrained.Pretrained(flat, NAMES, {})
  model, trained = files.split(given)
  assert model is given and trained is None
  for options, words in (
    ({"form": "sums"}, "of no known form: sums"),
    ({"block": 3}, "gates of blocks of 3"),
  ):
    path = _save(tmp_path / "a.safetensors", _trained(), **options)
    with refused(words):
      files.split(pretrained.load(path))
  path = _save(tmp_path / "c.safetensors", _trained())
  _, trained = files.split(pretrained.load(path))
  trained.delta["dec1"]["conv"]["first"] = np.zeros((3, 1, 4, 2), np.float32)
  with refused("of another network: "):
    files.convert_trained(STUDENT, trained)

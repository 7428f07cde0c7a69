"""Every gradient step in a run: by the loop, from a checkpoint, in a batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import systems, updates
from ojd.models import export as export_lib
from ojd.models import pretrained
from ojd.models.student import from_linen
from ojd.run import export, recorded_run, replay, workdir
from tests.reference import host_loop, scenes, small_run

# The others are optax's own, or one of these with other layers.
NAMES = sorted(
  set(updates.STEPS)
  - {"sgd", "nesterov", "adam", "partial_adam", "decoder"}
  - {"first_layers", "last_layers", "both_ends"}
)


@pytest.fixture(scope="module")
def runs(small_students, tmp_path_factory):
  """Runs with checkpoints among their frames, made when asked for."""

  @functools.cache
  def of(name):
    path = tmp_path_factory.mktemp("runs") / name
    flags = {"update": name, "a_thresh": 1.0, "learning_rate": None}
    small_run.run(path, num_frames=14, **flags)
    return recorded_run.read(path)

  return of


@pytest.mark.parametrize("name", NAMES)
def test_run_is_replayed_from_its_checkpoint(runs, name):
  run = runs(name)
  assert [row["num_updates"] for row in run.rows if row["is_key"]] == [3] * 4
  steps = (run.path / workdir.CHECKPOINTS).iterdir()
  assert {int(p.name) for p in steps if p.name.isdecimal()} == {9, 14}
  found = replay.replay(run, 10)
  assert found.is_equal and found.start.is_checkpoint and found.start.t == 9
  assert found.num_keys == 1 and found.num_checkpoints == 1


def test_student_that_is_taken_is_the_one_that_answers(runs, tmp_path):
  """Of `ema` the average: it says what the run said of its last frame."""
  run = runs("ema")
  last = run.rows[-1]
  assert not last["is_key"]
  taken = export.export(run, last["t"], tmp_path / "s.safetensors")
  assert taken.num_params > 0
  params = pretrained.load(taken.params).params
  job = recorded_run.open_job(run)
  (sample,) = [s for s in job.stream.read(last["t"]) if s.t == last["t"]]
  classes = export_lib.load(taken.program)(params, sample.frame[None])[0]
  found, truth = classes == 1, job.truth_groups.lookup[sample.truth] == 1
  iou = np.sum(found & truth) / np.sum(found | truth)
  assert iou == pytest.approx(last["eval_miou"], abs=1e-6)


@pytest.mark.parametrize("name", ["partial", "top_k", "replay"])
def test_batched_scans_are_single_scans(name):
  student = from_linen(small_run.SmallNet(3))
  frames, labels = scenes.coloured_squares(8)

  def run(rate, axis_name=None):
    tx = updates.STEPS[name].factory(learning_rate=rate)
    system = systems.fixed(student, tx, stride=3, u_max=2, a_thresh=0.95)
    state, infos_of = host_loop.scan(
      system, frames, labels, axis_name=axis_name
    )
    return system.serving.params(state), infos_of

  rates = jnp.array([0.001, 0.01])
  batched = jax.vmap(functools.partial(run, axis_name="a"), axis_name="a")
  many, single = jax.jit(batched)(rates), jax.jit(run)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-2, atol=1e-3)
  for i, rate in enumerate(rates):
    mine, (answers, infos_of) = jax.tree.map(lambda x, i=i: x[i], many)
    params, (classes, infos) = single(rate)
    assert int(infos.num_updates.sum()) > 0
    np.testing.assert_array_equal(infos_of.num_updates, infos.num_updates)
    assert np.mean(answers == classes) > 0.99
    jax.tree.map(close, mine, params)

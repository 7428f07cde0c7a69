"""Every gradient step in a run: by the loop, from a checkpoint, in lanes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import distill, systems, updates
from ojd.models import export as export_lib
from ojd.models import pretrained
from ojd.models.student import from_linen
from ojd.run import export, recorded_run, replay, workdir
from tests.reference import scenes, small_run

# The others are optax's own, or one of these with other layers.
NAMES = sorted(
  set(updates.STEPS)
  - {"sgd", "nesterov", "adam", "partial_adam", "decoder"}
  - {"first_layers", "last_layers", "both_ends"}
)


@pytest.fixture(scope="module")
def runs(small_students, tmp_path_factory):
  """Workdirs of runs with checkpoints among their frames, made when asked."""
  made = {}

  def of(name):
    if name not in made:
      made[name] = tmp_path_factory.mktemp("runs") / name
      flags = dict(update=name, num_frames=14, a_thresh=1.0, learning_rate=None)
      small_run.run(made[name], **flags)
    return made[name]

  return of


@pytest.mark.parametrize("name", NAMES)
def test_run_is_replayed_from_its_checkpoint(runs, name):
  run = recorded_run.read(runs(name))
  assert [row["num_updates"] for row in run.rows if row["is_key"]] == [3] * 4
  steps = (run.path / workdir.CHECKPOINTS).iterdir()
  assert {int(p.name) for p in steps if p.name.isdecimal()} == {9, 14}
  found = replay.replay(run, 10)
  assert found.is_equal and found.start.is_checkpoint and found.start.t == 9
  assert found.num_keys == 1 and found.num_checkpoints == 1


def test_student_that_is_taken_is_the_one_that_answers(runs, tmp_path):
  """Of `ema` the average: it says what the run said of its last frame."""
  run = recorded_run.read(runs("ema"))
  t = run.rows[-1]["t"]
  assert not run.rows[-1]["is_key"]
  taken = export.export(run, t, tmp_path / "s.safetensors")
  assert taken.num_params > 0
  params = pretrained.load(taken.params).params
  job = recorded_run.open_job(run)
  (sample,) = [s for s in job.stream.read(t) if s.t == t]
  classes = export_lib.load(taken.program)(params, sample.frame[None])[0]
  confusion = np.zeros((2, 2), int)
  expected = np.take(job.truth_groups.lookup, sample.truth)
  np.add.at(confusion, (expected, np.asarray(classes)), 1)
  iou = confusion[1, 1] / (confusion.sum() - confusion[0, 0])
  assert iou == pytest.approx(run.rows[-1]["eval_miou"], abs=1e-6)


@pytest.mark.parametrize("name", ["partial", "top_k", "replay"])
def test_lanes_are_single_scans(name):
  student = from_linen(small_run.SmallNet(3))
  frames, labels = scenes.coloured_squares(8)

  def run(rate, axis_name=None):
    tx = updates.STEPS[name].factory(learning_rate=rate)
    system = systems.fixed(student, tx, stride=3, u_max=2, a_thresh=0.95)
    state = system.init(jax.random.key(0), frames[0])
    scanned = distill.scan_stream(
      system, state, frames, labels, axis_name=axis_name
    )
    return system.serving.params(scanned[0]), scanned[1]

  rates = jnp.array([0.001, 0.01])
  lanes = jax.jit(jax.vmap(lambda rate: run(rate, "lane"), axis_name="lane"))(
    rates
  )
  single = jax.jit(run)
  for i, rate in enumerate(rates):
    mine = jax.tree.map(lambda x, i=i: x[i], lanes)
    params, (classes, infos) = single(rate)
    assert int(infos.num_updates.sum()) > 0
    np.testing.assert_array_equal(mine[1][1].num_updates, infos.num_updates)
    assert np.mean(mine[1][0] == classes) > 0.99
    for a, b in zip(
      jax.tree.leaves(mine[0]), jax.tree.leaves(params), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)

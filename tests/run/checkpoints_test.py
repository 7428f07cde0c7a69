"""Checkpoints: what comes back, what is refused, what survives a bad end."""

import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest

from ojd import updates
from ojd.errors import UserError
from ojd.run import checkpoints as checkpoints_lib
from ojd.run.checkpoints import CheckpointError, Checkpoints
from ojd.systems import jit as jit_lib
from ojd.types import Labels
from tests.reference import scenes, tiny_student

ROOT = pathlib.Path(__file__).parents[2]


class _State(NamedTuple):
  params: dict[str, Any]
  opt_state: optax.OptState
  schedule: tuple[()]
  keys: jax.Array
  t: jax.Array


def _make_state(t=0):
  """Something of everything that a state is made of; differs by t."""
  key = jax.random.key(t)
  w = jax.random.normal(key, (40, 50))
  params = {
    "layer/1": {"w": w, "half": w[:3].astype(jnp.bfloat16)},
    "list": [w[0] > 0, (jnp.arange(5, dtype=jnp.uint8),)],
    "constant": jnp.full((30,), t, jnp.float32),
    "special": jnp.array([jnp.nan, jnp.inf, -0.0, 1e-45]),
    "no elements": jnp.zeros((0, 3), jnp.float16),
    "none": None,
    "nothing": {},
  }
  opt_state = optax.sgd(0.1, momentum=0.9).init({"w": w})
  keys = jax.random.split(jax.random.key(t, impl="rbg"), 3)
  return _State(params, opt_state, (), keys, jnp.array(t, jnp.int32))


ABSTRACT = jax.eval_shape(_make_state)


def _bits(state):
  """The leaves as independent numpy copies."""

  def copy(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.array(jax.random.key_data(x) if is_key else x)

  return [copy(x) for x in jax.tree.leaves(state)]


def _assert_same(state, expected):
  """Same types, same tree, same bits."""
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  for ours, theirs in zip(
    jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
  ):
    assert isinstance(ours, jax.Array) and ours.dtype == theirs.dtype
    assert ours.sharding == theirs.sharding
  for ours, theirs in zip(_bits(state), _bits(expected), strict=True):
    assert ours.shape == theirs.shape
    assert ours.tobytes() == theirs.tobytes()


@pytest.fixture
def checkpoints(tmp_path):
  checkpoints = Checkpoints(tmp_path / "checkpoints", keep_every=0)
  yield checkpoints
  checkpoints.close()


def _save_some(checkpoints, *steps):
  for t in steps:
    checkpoints.save(t, _make_state(t), {"t": t})
  checkpoints.wait()


def test_state_and_meta_come_back(checkpoints):
  meta = {"frame": 7, "stream": {"kind": "ö"}, "miou": float("inf")}
  checkpoints.save(7, _make_state(7), meta)
  meta["frame"] = 8  # too late
  t, state, restored = checkpoints.restore(7, ABSTRACT)
  assert (t, restored["frame"]) == (7, 7)
  assert restored == meta | {"frame": 7}
  _assert_same(state, _make_state(7))


def test_meta_that_json_cannot_hold_is_refused_at_once(checkpoints):
  with pytest.raises(TypeError):
    checkpoints.save(1, _make_state(), {"x": np.zeros(3)})


def test_leaves_of_one_name_are_refused_at_once(checkpoints):
  x = jnp.zeros(3)
  with pytest.raises(ValueError, match="the same name"):
    checkpoints.save(1, {"a.b": x, "a": {"b": x}}, {})


@pytest.mark.parametrize("name", ["relative", "with ü #%? blanks"])
def test_any_folder(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  checkpoints = Checkpoints(pathlib.Path(name), keep_every=0)
  _save_some(checkpoints, 1)
  monkeypatch.chdir("/")
  _assert_same(checkpoints.restore(1, ABSTRACT).state, _make_state(1))
  checkpoints.close()


def test_nothing_is_made_before_the_first_save(checkpoints):
  assert checkpoints.steps() == []
  assert checkpoints.restore_latest(ABSTRACT) == (None, [])
  with pytest.raises(UserError, match="no checkpoint 3"):
    checkpoints.restore(3, ABSTRACT)
  assert not checkpoints.folder.exists()


def test_saved_state_outlives_its_buffers(checkpoints):
  step = jax.jit(
    lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0
  )
  state = step({f"{i}": jnp.full((300, 300), 1.0 * i) for i in range(8)})
  expected = {}
  for t in range(4):
    expected[t] = _bits(state)
    before = [x.unsafe_buffer_pointer() for x in state.values()]
    checkpoints.save(t, state, {})
    for _ in range(3):  # overwritten while it is being written
      state = step(state)
    after = [x.unsafe_buffer_pointer() for x in state.values()]
    assert set(before) & set(after)  # or this would prove nothing
  for t in checkpoints.steps():
    restored = checkpoints.restore(t, state).state
    for ours, theirs in zip(_bits(restored), expected[t], strict=True):
      np.testing.assert_array_equal(ours, theirs)


def test_run_goes_on_as_if_never_interrupted(checkpoints):
  frames, labels = scenes.coloured_squares(12)
  labels = [Labels(*(x[t] for x in labels)) for t in range(12)]
  student, tx = tiny_student.make(), updates.sgd(learning_rate=0.3)
  system = jit_lib.jit(student, tx, delta_min=2, delta_max=4, u_max=2)
  init = jax.jit(lambda: system.init(jax.random.key(0), frames[0]))
  abstract = jax.eval_shape(init)
  frame = jax.ShapeDtypeStruct(frames[0].shape, frames[0].dtype)
  # Compiled programs take no other types and placements than these.
  predict = jax.jit(system.predict, donate_argnums=0)
  predict = predict.lower(abstract, frame).compile()
  learn = jax.jit(system.learn, donate_argnums=0)
  learn = learn.lower(abstract, frame, labels[0]).compile()

  def go(state, start, save_at=None):
    answers = []
    for t in range(start, 12):
      if t == save_at:
        checkpoints.save(t, state, {})
      if int(system.next_key(state)) == t:
        state, classes, _ = learn(state, frames[t], labels[t])
      else:
        state, classes = predict(state, frames[t])
      answers.append(np.array(classes))
    return state, answers

  state, answers = go(init(), 0, save_at=5)
  resumed, rest = go(checkpoints.restore(5, abstract).state, 5)
  _assert_same(resumed, state)
  np.testing.assert_array_equal(rest, answers[5:])


@pytest.mark.parametrize(
  ("keep_every", "kept"), [(0, [13, 16]), (5, [1, 9, 13, 16])]
)
def test_what_is_kept(tmp_path, keep_every, kept):
  for steps in ((1, 4, 5, 9), (12, 13, 16)):  # by two processes
    checkpoints = Checkpoints(tmp_path, keep_every)
    for t in steps:
      checkpoints.save(t, {"x": jnp.zeros(3)}, {})
    checkpoints.close()
  assert checkpoints.steps() == kept


def test_run_that_went_back_takes_its_new_course(checkpoints):
  _save_some(checkpoints, 2, 4, 6)
  assert checkpoints.restore_latest(ABSTRACT, at_most=5)[0].t == 4
  checkpoints.save(5, _make_state(55), {})
  checkpoints.wait()
  assert checkpoints.steps() == [4, 5]
  checkpoints.save(5, _make_state(56), {})
  _assert_same(checkpoints.restore(5, ABSTRACT).state, _make_state(56))


def test_checkpoint_that_is_there_is_not_written_again(checkpoints):
  _save_some(checkpoints, 2)
  mark = checkpoints.folder / "2" / "mark"
  mark.touch()
  again = Checkpoints(checkpoints.folder, keep_every=0)
  assert again.restore_latest(ABSTRACT)[0].t == 2
  _save_some(again, 2)
  assert mark.exists()
  again.save(2, _make_state(2), {"t": "other"})
  again.close()
  assert not mark.exists()


def _replaced(**fields):
  return ABSTRACT._replace(**fields)


@pytest.mark.parametrize(
  ("wanted", "words"),
  [
    (
      _replaced(t=jax.ShapeDtypeStruct((), jnp.float32)),
      "t is int32[] there and float32[] here",
    ),
    (
      _replaced(params=ABSTRACT.params | {"constant": ABSTRACT.t}),
      "params.constant is float32[30] there and int32[] here",
    ),
    (
      _replaced(params=ABSTRACT.params | {"new": ABSTRACT.t}),
      "params.new is missing there and int32[] here",
    ),
    (_replaced(opt_state=()), "0.trace.w is float32[40,50] there and missing"),
    (_replaced(params={}), "params.constant is float32[30] there and missing"),
    (
      _replaced(
        keys=jax.eval_shape(lambda: jax.random.split(jax.random.key(0)))
      ),
      "keys is key<rbg>[3] there and key<fry>[2] here",
    ),
  ],
)
def test_another_state_is_refused(checkpoints, wanted, words):
  _save_some(checkpoints, 1)
  for restore in (
    lambda: checkpoints.restore(1, wanted),
    lambda: checkpoints.restore_latest(wanted),
  ):
    with pytest.raises(UserError) as error:
      restore()
    assert words in str(error.value) and "\n" not in str(error.value)


def test_another_format_is_refused(checkpoints, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(checkpoints_lib, "FORMAT", 4)
    _save_some(checkpoints, 1)
  with pytest.raises(UserError, match="of format 4, and only 3 is known"):
    checkpoints.restore_latest(ABSTRACT)


def _damage(file, rng):
  content = bytearray(file.read_bytes())
  place = rng.randrange(len(content))
  kind = rng.choice(["flip", "flip", "cut", "zeros", "gone"])
  if kind == "gone":
    return file.unlink()
  if kind == "flip":
    content[place] ^= 1 << rng.randrange(8)
  elif kind == "cut":
    del content[place:]
  else:
    content[place : place + 512] = bytes(len(content[place : place + 512]))
  file.write_bytes(content)


def test_damage_falls_back_and_never_gives_wrong_numbers(checkpoints, tmp_path):
  _save_some(checkpoints, 1, 2)
  path, whole = checkpoints.folder / "2", tmp_path / "whole"
  shutil.copytree(path, whole)
  names = [x.relative_to(whole) for x in whole.rglob("*") if x.is_file()]
  rng, fell_back = random.Random(0), 0
  for name in sorted(names) * 3:
    _damage(path / name, rng)
    restored, problems = checkpoints.restore_latest(ABSTRACT)
    _assert_same(restored.state, _make_state(restored.t))
    assert restored.meta == {"t": restored.t}
    assert len(problems) == 2 - restored.t
    for problem in problems:
      assert f"{path} is damaged" in problem and "\n" not in problem
    fell_back += restored.t == 1
    shutil.rmtree(path)
    shutil.copytree(whole, path)
  assert fell_back > len(names)


def test_number_that_only_its_own_digest_tells(checkpoints):
  x = np.random.default_rng(0).integers(0, 256, 4000, np.uint8)
  checkpoints.save(1, {"x": jnp.asarray(x)}, {})
  checkpoints.wait()
  path, bits = checkpoints.folder / "1", x[40:80].tobytes()
  (file,) = (f for f in path.rglob("d/*") if bits in f.read_bytes())
  content = bytearray(file.read_bytes())
  content[content.index(bits)] ^= 1
  file.write_bytes(content)
  by_orbax = orbax.checkpoint.StandardCheckpointer().restore(path / "state")
  assert by_orbax["x"][40] == x[40] ^ 1  # without a word
  (path / "digest").write_text(checkpoints_lib._digest_of_files(path))
  with pytest.raises(CheckpointError, match="numbers are not those saved"):
    checkpoints.restore(1, {"x": x})


def test_damaged_and_unfinished_ones_are_in_nobodys_way(checkpoints):
  _save_some(checkpoints, 2, 4)
  (checkpoints.folder / "2" / "_CHECKPOINT_METADATA").write_text("{")
  (checkpoints.folder / "4" / "digest").unlink()  # killed just before it
  shutil.copytree(
    checkpoints.folder / "4", checkpoints.folder / "6.orbax-checkpoint-tmp"
  )
  again = Checkpoints(checkpoints.folder, keep_every=0)
  restored, (problem,) = again.restore_latest(ABSTRACT)
  assert restored.t == 2 and "4 is damaged" in problem
  _save_some(again, 3)
  assert sorted(os.listdir(checkpoints.folder)) == ["2", "3"]
  again.close()


def _fail_to_write(checkpoints, t, state):
  """Saves where no file may grow, as on a full disk."""
  unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, unlimited[1]))
    checkpoints.save(t, state, {})
    while not checkpoints._writing.done():
      time.sleep(0.01)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


@pytest.mark.parametrize("ask", ["save", "wait", "close", "restore"])
def test_failed_save_is_told_once_and_harms_nothing(checkpoints, ask):
  big = {
    f"{i}": jax.random.normal(jax.random.key(i), (99, 99)) for i in range(9)
  }
  checkpoints.save(1, big, {})
  checkpoints.wait()
  _fail_to_write(checkpoints, 2, big)
  with pytest.raises(CheckpointError) as error:
    if ask == "save":
      checkpoints.save(3, big, {})
    elif ask == "restore":
      checkpoints.restore(1, big)
    else:
      getattr(checkpoints, ask)()
  path = checkpoints.folder / "2"
  assert str(error.value) == f"{path} could not be written: File too large"
  checkpoints.wait()  # told already
  assert os.listdir(checkpoints.folder) == ["1"]
  if ask == "close":
    return checkpoints.close()
  checkpoints.save(4, big, {})
  checkpoints.wait()
  assert sorted(os.listdir(checkpoints.folder)) == ["1", "4"]
  restored, problems = checkpoints.restore_latest(big)
  assert (restored.t, problems) == (4, [])
  _assert_same(checkpoints.restore(1, big).state, big)


def test_folder_that_cannot_be_is_told(tmp_path):
  (tmp_path / "file").write_text("")
  checkpoints = Checkpoints(tmp_path / "file" / "below", keep_every=0)
  checkpoints.save(1, _make_state(), {})
  with pytest.raises(CheckpointError, match="could not be written"):
    checkpoints.close()
  checkpoints.close()
  assert (tmp_path / "file").read_text() == ""


def test_close_leaves_no_thread(checkpoints):
  before = set(threading.enumerate())
  _save_some(checkpoints, 1)
  checkpoints.restore(1, ABSTRACT)
  checkpoints.close()
  checkpoints.close()
  assert set(threading.enumerate()) <= before


def _start(script, *args):
  return subprocess.Popen(
    [sys.executable, "-c", script, *map(str, args)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


QUIET = """
import resource, sys
import absl.logging
import jax.numpy as jnp
from ojd.run.checkpoints import CheckpointError, Checkpoints
absl.logging.set_verbosity(absl.logging.INFO)
checkpoints = Checkpoints(sys.argv[1], keep_every=0)
assert not checkpoints.steps() and "orbax" not in sys.modules
state = {f"{i}": jnp.full((99, 99), 1.5 * i) for i in range(20)}
checkpoints.save(1, state, {})
checkpoints.restore(1, state)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in (0, 100, 300) * 5:
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
  checkpoints.save(2, state, {})
  try:
    checkpoints.wait()
    raise SystemExit("no failure")
  except CheckpointError:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
checkpoints.save(3, state, {})
checkpoints.close()
"""


def test_nothing_is_said_but_in_errors(tmp_path):
  process = _start(QUIET, tmp_path)
  out, err = process.communicate(timeout=120)
  assert (process.returncode, out, err) == (0, "", "")
  assert Checkpoints(tmp_path, keep_every=0).steps() == [1, 3]


ENDLESS = """
import itertools, sys
import jax.numpy as jnp
from ojd.run.checkpoints import Checkpoints
checkpoints = Checkpoints(sys.argv[1], keep_every=0)
state = {f"{i}": jnp.full((200, 200), 1.0 * i) for i in range(9)}
latest, _ = checkpoints.restore_latest(state)
for t in itertools.count(latest.t + 1 if latest else 1):
  made = {name: x + t for name, x in state.items()}
  checkpoints.save(t, made, {"t": t})
  print(t, flush=True)
"""


def test_killed_while_saving(tmp_path):
  rng, reached = random.Random(0), 0
  like = {f"{i}": jnp.zeros((200, 200)) for i in range(9)}
  for _ in range(4):
    process = _start(ENDLESS, tmp_path)
    for _ in range(3):  # two of which are written
      assert process.stdout.readline()
    time.sleep(rng.random())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    checkpoints = Checkpoints(tmp_path, keep_every=0)
    restored, problems = checkpoints.restore_latest(like)
    assert restored.t > reached and restored.meta == {"t": restored.t}
    assert len(problems) <= 1
    for i in range(9):
      np.testing.assert_array_equal(restored.state[f"{i}"], i + restored.t)
    reached = restored.t
    checkpoints.close()
  checkpoints = Checkpoints(tmp_path, keep_every=0)
  checkpoints.save(reached + 1, like, {})
  checkpoints.close()
  kept = [int(name) for name in os.listdir(tmp_path)]
  assert sorted(kept)[-2:] == [reached, reached + 1]

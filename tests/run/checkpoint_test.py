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

from ojd.run import checkpoint as checkpoint_lib
from ojd.run import stats as stats_lib
from ojd.run.checkpoint import Checkpointer, CheckpointError
from tests import binaries
from tests.reference.refusals import refused
from tests.waiting import until


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


def open_at(path, abstract_state=ABSTRACT, keep_every=0):
  """The checkpoints of a workdir, for a state of those shapes."""
  reference = jax.ShapeDtypeStruct((2, 3), np.uint8)
  abstract = checkpoint_lib.Saved(abstract_state, reference)
  return Checkpointer(path, abstract, {"name": "ö"}, keep_every)


def snapshot(t, state):
  """Of frame t, without labels; its stage `note` has t seconds."""
  stats = stats_lib.RunStats.empty(1)
  return checkpoint_lib.Snapshot(t, state, None, None, stats, {"note": t}, {})


def _bits(state):
  """The leaves as independent numpy copies."""
  is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
  return [
    np.array(jax.random.key_data(x) if is_key(x) else x)
    for x in jax.tree.leaves(state)
  ]


def _assert_same(state, expected):
  """Same types, same tree, same bits."""
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  pairs = zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True)
  for ours, theirs in pairs:
    assert isinstance(ours, jax.Array) and ours.dtype == theirs.dtype
    assert ours.sharding == theirs.sharding and ours.shape == theirs.shape
  of = lambda tree: [x.tobytes() for x in _bits(tree)]
  assert of(state) == of(expected)


@pytest.fixture
def checkpoints(tmp_path):
  made = open_at(tmp_path / "run")
  yield made
  made.close()


def _save(checkpoints, t, state):
  checkpoints.save(snapshot(t, state))
  checkpoints.wait()


def _save_some(checkpoints, *steps):
  for t in steps:
    checkpoints.save(snapshot(t, _make_state(t)))
  checkpoints.wait()


def test_snapshot_comes_back(checkpoints):
  assert checkpoints.steps() == [] and checkpoints.latest() == (None, [])
  assert not checkpoints.folder.exists()
  stats = stats_lib.RunStats.empty(3)
  stats.confusion[1, 2], stats.num_keys, stats.total_delay = 5, 4, 9
  stats.link = {"course": [1.5, float("inf")]}
  reference = np.arange(6, dtype=np.uint8).reshape(2, 3)
  rest = (reference, 5, stats, {"learn": 0.1}, {"learn": 3})
  saved = checkpoint_lib.Snapshot(7, _make_state(7), *rest)
  checkpoints.save(saved)
  stats.num_keys = 5  # too late
  found, problems = checkpoints.latest()
  assert problems == [] and found.stats.num_resumed == 1
  content = found.stats.to_json() | {"num_resumed": 0, "num_keys": 5}
  assert content == stats.to_json() and found.stats.num_keys == 4
  np.testing.assert_array_equal(found.reference, reference)
  for name in ("t", "reference_t", "seconds", "counts"):
    assert getattr(found, name) == getattr(saved, name)
  _assert_same(found.state, _make_state(7))


def test_what_cannot_be_saved_is_refused_at_once(checkpoints):
  x = jnp.zeros(3)
  with pytest.raises(TypeError):  # JSON holds no arrays
    checkpoints.save(snapshot(1, {"a": x})._replace(seconds={"x": x}))
  with pytest.raises(ValueError, match="the same name"):
    checkpoints.save(snapshot(1, {"a.b": x, "a": {"b": x}}))


@pytest.mark.parametrize("name", ["relative", "with ü #%? blanks"])
def test_any_folder(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  threads = set(threading.enumerate())
  checkpoints = open_at(pathlib.Path(name))
  _save_some(checkpoints, 1)
  monkeypatch.chdir("/")
  _assert_same(checkpoints.latest()[0].state, _make_state(1))
  checkpoints.close()
  checkpoints.close()
  # Those of Orbax's event loops end by themselves, a moment later.
  until(lambda: set(threading.enumerate()) <= threads)


def test_saved_state_outlives_its_buffers(tmp_path):
  add = lambda state: jax.tree.map(lambda x: x + 1, state)
  step = jax.jit(add, donate_argnums=0)
  state = step({f"{i}": jnp.full((300, 300), 1.0 * i) for i in range(8)})
  checkpoints, expected = open_at(tmp_path, jax.eval_shape(lambda: state)), {}
  for t in range(4):
    expected[t] = _bits(state)
    before = [x.unsafe_buffer_pointer() for x in state.values()]
    checkpoints.save(snapshot(t, state))
    for _ in range(3):  # overwritten while it is being written
      state = step(state)
    after = [x.unsafe_buffer_pointer() for x in state.values()]
    assert set(before) & set(after)  # or this would prove nothing
  for t in checkpoints.steps():
    restored = checkpoints.latest(at_most=t)[0].state
    np.testing.assert_array_equal(_bits(restored), expected[t])
  checkpoints.close()


def test_what_is_kept(tmp_path):
  for keep_every, kept in ((0, [13, 16]), (5, [1, 9, 13, 16])):
    path = tmp_path / str(keep_every)
    for steps in ((1, 4, 5, 9), (12, 13, 16)):  # by two processes
      checkpoints = open_at(path, keep_every=keep_every)
      for t in steps:
        checkpoints.save(snapshot(t, {"x": jnp.zeros(3)}))
      checkpoints.close()
    assert checkpoints.steps() == kept


def test_run_that_went_back_takes_its_new_course(checkpoints):
  _save_some(checkpoints, 2, 4, 6)
  assert checkpoints.latest(at_most=5)[0].t == 4
  _save(checkpoints, 5, _make_state(55))
  assert checkpoints.steps() == [4, 5]
  _assert_same(checkpoints.latest()[0].state, _make_state(55))


def test_checkpoint_that_is_there_is_not_written_again(checkpoints, tmp_path):
  _save_some(checkpoints, 2)
  mark = checkpoints.folder / "2" / "mark"
  mark.touch()
  _save_some(checkpoints, 2)
  again = open_at(tmp_path / "run")
  assert again.latest()[0].t == 2
  _save_some(again, 2)
  again.close()
  assert mark.exists()


def test_checkpoint_beyond_the_metrics_is_passed_over(checkpoints):
  for t in (2, 4):
    saved = snapshot(t, _make_state(t))
    saved.stats.num_frames = t
    checkpoints.save(saved)
  checkpoints.wait()
  metrics = checkpoints.folder.with_name("metrics.jsonl")
  metrics.write_text("{}\n{}\n{}\n{")  # the last line is torn
  found, problems = checkpoints.latest()
  assert found.t == 2 and problems == ["the metrics end before frame 4"]


KEY = jax.random.key(0)
KEYS = jax.eval_shape(lambda: jax.random.split(KEY))
PARAMS, T = ABSTRACT.params, ABSTRACT.t
OTHERS = [
  ({"t": PARAMS["constant"]}, "t is int32[] there and float32[30] here"),
  ({"params": PARAMS | {"special": T}}, "is float32[4] there and int32[] here"),
  ({"params": PARAMS | {"new": T}}, "params.new is missing there and int32[]"),
  ({"opt_state": ()}, "0.trace.w is float32[40,50] there and missing"),
  ({"params": {}}, "params.constant is float32[30] there and missing"),
  ({"keys": KEYS}, "keys is key<rbg>[3] there and key<fry>[2] here"),
]


def test_another_state_or_format_is_refused(checkpoints, tmp_path, monkeypatch):
  _save_some(checkpoints, 1)
  for changes, words in OTHERS:
    wanted = ABSTRACT._replace(**changes)
    with refused(words):
      open_at(tmp_path / "run", wanted).latest()
  monkeypatch.setattr(checkpoint_lib, "FORMAT", 4)
  with refused("has format 3, and this version reads only 4"):
    checkpoints.latest()


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
    restored, problems = checkpoints.latest()
    _assert_same(restored.state, _make_state(restored.t))
    assert restored.seconds == {"note": restored.t}
    assert len(problems) == 2 - restored.t
    for problem in problems:
      assert f"{path} is damaged" in problem and "\n" not in problem
    fell_back += restored.t == 1
    shutil.rmtree(path)
    shutil.copytree(whole, path)
  assert fell_back > len(names)


def test_number_that_only_its_own_digest_tells(tmp_path):
  x = np.random.default_rng(0).integers(0, 256, 4000, np.uint8)
  checkpoints = open_at(tmp_path, {"x": x})
  _save(checkpoints, 1, {"x": jnp.asarray(x)})
  path, bits = checkpoints.folder / "1", x[40:80].tobytes()
  (file,) = (f for f in path.rglob("d/*") if bits in f.read_bytes())
  content = bytearray(file.read_bytes())
  content[content.index(bits)] ^= 1
  file.write_bytes(content)
  by_orbax = orbax.checkpoint.StandardCheckpointer().restore(path / "state")
  assert by_orbax["system"]["x"][40] == x[40] ^ 1  # without a word
  (path / "digest").write_text(checkpoint_lib._digest_of_files(path))
  found, (problem,) = checkpoints.latest()
  assert found is None and "numbers differ from those saved" in problem
  checkpoints.close()


def test_damaged_and_unfinished_ones_are_in_nobodys_way(checkpoints, tmp_path):
  _save_some(checkpoints, 2, 4)
  (checkpoints.folder / "2" / "_CHECKPOINT_METADATA").write_text("{")
  (checkpoints.folder / "4" / "digest").unlink()  # killed just before it
  unfinished = checkpoints.folder / "6.orbax-checkpoint-tmp"
  shutil.copytree(checkpoints.folder / "4", unfinished)
  again = open_at(tmp_path / "run")
  restored, (problem,) = again.latest()
  assert restored.t == 2 and "4 is damaged" in problem
  _save_some(again, 3)
  assert sorted(os.listdir(checkpoints.folder)) == ["2", "3"]
  again.close()


def _fail_to_write(checkpoints, t, state):
  """Saves where no file may grow, as on a full disk."""
  unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, unlimited[1]))
    checkpoints.save(snapshot(t, state))
    while not checkpoints._writing.done():
      time.sleep(0.01)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


@pytest.mark.parametrize("ask", ["save", "wait", "close", "latest"])
def test_failed_save_is_raised_once_and_harms_nothing(tmp_path, ask):
  big = {f"{i}": jax.random.normal(KEY, (99, 99)) + i for i in range(9)}
  checkpoints = open_at(tmp_path, jax.eval_shape(lambda: big))
  _save(checkpoints, 1, big)
  _fail_to_write(checkpoints, 2, big)
  arguments = [snapshot(3, big)] if ask == "save" else []
  with pytest.raises(CheckpointError) as error:
    getattr(checkpoints, ask)(*arguments)
  path = checkpoints.folder / "2"
  assert str(error.value) == f"{path} could not be written: File too large"
  assert os.listdir(checkpoints.folder) == ["1"]
  if ask == "close":
    return checkpoints.close()  # raised already
  _save(checkpoints, 4, big)
  assert sorted(os.listdir(checkpoints.folder)) == ["1", "4"]
  for t in (4, 1):
    restored, problems = checkpoints.latest(at_most=t)
    assert (restored.t, problems) == (t, [])
    _assert_same(restored.state, big)
  checkpoints.close()


def test_folder_that_cannot_be_is_an_error(tmp_path):
  (tmp_path / "file").touch()
  checkpoints = open_at(tmp_path / "file" / "below")
  with pytest.raises(CheckpointError, match="could not be written"):
    _save(checkpoints, 1, _make_state())
  checkpoints.close()
  assert (tmp_path / "file").is_file()


def _start(script, path):
  words, pipe = [sys.executable, "-c", script, str(path)], subprocess.PIPE
  options = {"cwd": binaries.ROOT, "text": True}
  return subprocess.Popen(words, stdout=pipe, stderr=pipe, **options)


QUIET = """
import pathlib, resource, sys
import absl.logging
import jax.numpy as jnp
from ojd.run.checkpoint import CheckpointError
from tests.run.checkpoint_test import open_at, snapshot
absl.logging.set_verbosity(absl.logging.INFO)
state = {f"{i}": jnp.full((99, 99), 1.5 * i) for i in range(20)}
checkpoints = open_at(pathlib.Path(sys.argv[1]), state)
assert not checkpoints.steps()
checkpoints.save(snapshot(1, state))
checkpoints.latest()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in (0, 100, 300) * 5:
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
  checkpoints.save(snapshot(2, state))
  try:
    checkpoints.wait()
    raise SystemExit("no failure")
  except CheckpointError:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
checkpoints.save(snapshot(3, state))
checkpoints.close()
"""


def test_nothing_is_printed_but_in_errors(tmp_path):
  process = _start(QUIET, tmp_path)
  out, err = process.communicate(timeout=120)
  assert (process.returncode, out, err) == (0, "", "")
  assert open_at(tmp_path).steps() == [1, 3]


ENDLESS = """
import itertools, pathlib, sys
import jax.numpy as jnp
from tests.run.checkpoint_test import open_at, snapshot
state = {f"{i}": jnp.full((200, 200), 1.0 * i) for i in range(9)}
checkpoints = open_at(pathlib.Path(sys.argv[1]), state)
latest, _ = checkpoints.latest()
for t in itertools.count(latest.t + 1 if latest else 1):
  made = {name: x + t for name, x in state.items()}
  checkpoints.save(snapshot(t, made))
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
    checkpoints = open_at(tmp_path, like)
    restored, problems = checkpoints.latest()
    assert restored.t > reached and restored.seconds == {"note": restored.t}
    assert len(problems) <= 1
    for i in range(9):
      np.testing.assert_array_equal(restored.state[f"{i}"], i + restored.t)
    reached = restored.t
    checkpoints.close()
  checkpoints = open_at(tmp_path, like)
  checkpoints.save(snapshot(reached + 1, like))
  checkpoints.close()
  kept = [int(name) for name in os.listdir(checkpoints.folder)]
  assert sorted(kept)[-2:] == [reached, reached + 1]

"""Switches for every test: parsed flags, strict shapes, where the clips are."""

import gc
import os
import pathlib

import jax
import pytest
from absl import flags

from ojd.models import student
from ojd.run import compilation
from tests.reference import small_run

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)  # for what spreads over several
# Compiling is most of the time of many tests, and the same at each run.
compilation.enable_cache(compilation.default_cache())


# A million objects of traced programs live as long as the tests do: to look
# through them all time and again takes a fifth of the tests' time.
gc.set_threshold(50_000, 20, 20)

# Files that take a minute or more: begun first, so that nobody waits for one.
_LONG = (
  *("cluster_test", "online_distill_test", "record_test", "serve_test"),
  *("replay_test", "compare_test", "resume_test", "distill_test"),
  *("networks_test", "fork_test"),
)


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: item.path.stem not in _LONG)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
  """No file runs another's programs: together they are gigabytes a worker."""
  yield
  jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def _parsed_flags():
  flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def clips() -> pathlib.Path:
  """The folder of the labelled clips; skips where there is none."""
  beside = pathlib.Path(__file__).parents[2] / "shared" / "data"
  path = pathlib.Path(os.environ.get("OJD_DATA", beside))
  if not path.is_dir():
    pytest.skip(f"no clips in {path}; set OJD_DATA to their folder")
  return path


@pytest.fixture(scope="module")
def small_students():
  """Every student is `small_run.SmallNet`: runs take a second each."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(student, "MODELS", small_run.MODELS)
    yield

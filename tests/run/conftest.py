"""What the tests of runs share."""

import pytest

from ojd.models import student
from tests.reference import small_run


@pytest.fixture(scope="module")
def small_students():
  """Every student is `small_run.SmallNet`: runs take a second each."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(student, "MODELS", small_run.MODELS)
    yield

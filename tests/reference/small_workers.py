"""The workers of comparisons, whose students are small ones."""

from ojd.compare import worker
from ojd.models import student
from tests.reference import small_run


def serve(fd: int) -> None:
  """Serves as workers do, in a process whose students are small."""
  # Not at import: a test that names this module has students of its own.
  student.MODELS = small_run.MODELS
  worker.serve(fd)

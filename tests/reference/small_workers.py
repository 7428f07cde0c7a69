"""The workers of comparisons, whose students are small ones."""

from ojd.models import student
from ojd.run import comparison_worker
from tests.reference import small_run

student.MODELS = small_run.MODELS
serve = comparison_worker.serve

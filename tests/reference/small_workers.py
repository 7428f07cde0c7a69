"""The workers of comparisons, whose students are small ones."""

from ojd.comparison import worker
from ojd.models import student
from tests.reference import small_run

student.MODELS = small_run.MODELS
serve = worker.serve

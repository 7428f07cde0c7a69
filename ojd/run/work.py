"""What the answers of a run cost, in work that no machine changes."""

from ojd import distill
from ojd.models.delta import sites
from ojd.run.job import Job
from ojd.run.stats import RunStats


def note(stats: RunStats, job: Job, state: distill.State) -> None:
  """Notes the work of an answer so far, on average; None where it is not told.

  Multiply-accumulates of the student's convolutions / 1e9, learning apart.
  """
  system, student, spec = job.system, job.student, job.stream.spec
  if system.work is not None:
    total = float(system.work(state))
    stats.gmac_per_frame = total / stats.clock if stats.clock else None
  # Else each answer is that of the whole student, or of something else.
  elif system.answer is not None and student is not None and student.run:
    found = sites.trace(student, spec.height, spec.width)
    stats.gmac_per_frame = sum(site.macs for site in found) / 1e9

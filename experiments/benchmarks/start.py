"""The start of a run.

warm_vs_cold_start
    from the start of a run to its first answer, second time over first, eight
    updates on the first frame and drawing its world included, the teacher free
    (warm below 3000 ms)
"""

import tempfile

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Case


def start(at):
  """A first and a second process with one compilation cache between them."""
  pairs = []
  for _ in range(max(1, at.repeats // 3)):
    with tempfile.TemporaryDirectory() as cache:
      cold, warm = (
        1e3 * summary["first_frame_seconds"]
        for summary in (
          measure.run_in_process(at.size, 1, {"XDG_CACHE_HOME": cache})
          for _ in range(2)
        )
      )
    pairs.append((warm, cold))
  note = f"to the first answer beyond imports, {at.size_text}"
  return measure.of_pairs("warm_vs_cold_start", pairs, note)


CASES = [Case(start, measure.SMALL)]

"""Updates in the lax loop.

adapt_vs_updates
    an update of eight in the loop, over a single one (at most 1.1)
"""

import jax

from experiments.benchmarks import measure, students
from experiments.benchmarks.measure import Case
from ojd import distill, updates

NUM_UPDATES = 8


def adapt(at):
  """Eight updates in one `while_loop` against eight jitted single ones."""
  student, params, frame, labels = students.inputs(at)
  tx = updates.sgd(learning_rate=0.01)
  opt_state = tx.init(params)

  @jax.jit
  def loop(params, opt_state):
    return distill.adapt(
      *(student, tx, params, opt_state, frame, labels),
      a_thresh=2.0,  # never met
      u_max=NUM_UPDATES,
    )

  single = students.single_update(student, tx, frame, labels)
  return measure.compare(
    "adapt_vs_updates",
    lambda: loop(params, opt_state),
    lambda: single(params, opt_state),
    at=at,
    ours_per_opponent=NUM_UPDATES,
    note=f"an update in the loop and alone, {at.precision}",
  )


CASES = [Case(adapt, measure.MIDDLE), Case(adapt, measure.BIG)]

"""The flags of the live view.

They are no fields of RunConfig: a run resumes with or without a view, and the
secret is in none of its files.
"""

import contextlib
from collections.abc import Callable, Iterator

from absl import flags

from ojd.errors import UserError
from ojd.serve.display import LiveDisplay
from ojd.serve.server import LiveView

_SERVE = flags.DEFINE_string(
  "serve",
  "",
  "HOST:PORT of a web page that shows the run live, for instance "
  "127.0.0.1:8080; port 0 picks a free one; empty: no page",
)
_SERVE_TOKEN = flags.DEFINE_string(
  "serve_token",
  "",
  "a secret that viewers must give; needed unless the address is of this "
  "machine alone. --flagfile=FILE keeps it out of the list of processes",
)


@contextlib.contextmanager
def live_display(
  note_fn: Callable[[str], None],
) -> Iterator[LiveDisplay | None]:
  """The display of the view that the flags ask for; None without one.

  Args:
    note_fn: called with the address.
  """
  if not _SERVE.value:
    if _SERVE_TOKEN.value:
      raise UserError("--serve_token needs --serve=HOST:PORT")
    yield None
    return
  view = LiveView(_SERVE.value, _SERVE_TOKEN.value)
  how = " (open it with ?token=...)" if _SERVE_TOKEN.value else ""
  note_fn(f"live view: {view.url}{how}")
  with contextlib.closing(view):
    yield view.display

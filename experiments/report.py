r"""Rewrites the reports of runs, and writes a page about all of them.

    python -m experiments.report runs/street
    python -m experiments.report runs
    python -m experiments.report runs/a runs/b --out=compared.html

The first writes runs/street/report/index.html from the files of the workdir.
The second does so for every run in the folder and writes runs/index.html: a
sortable table with a line a run and the flags in which they differ, and the
accuracy of all runs over their frames. A second or two a run. --smoke makes two
tiny runs first, in under a minute.
"""

import os
import pathlib
import tempfile

from absl import flags

from experiments import cli
from ojd.errors import UserError
from ojd.report import runs_page

_OUT = flags.DEFINE_string(
  "out",
  "",
  "the file for the page about all runs; empty: index.html in their common "
  "folder",
)
_SMOKE = flags.DEFINE_bool("smoke", False, "make two tiny runs first")


def main(words: list[str]) -> None:
  """Writes the pages and prints their paths."""
  folders = [pathlib.Path(word).expanduser() for word in words]
  if _SMOKE.value:
    folders += _tiny_runs()
  if not folders:
    raise UserError("name a workdir, several, or the folder that holds them")
  found = [path for folder in folders for path in runs_page.find(folder)]
  workdirs = list({path.resolve(): path for path in found}.values())
  if found == folders and len(workdirs) == 1 and not _OUT.value:
    runs_page.rewrite_one(workdirs[0])
    print(workdirs[0] / "report" / "index.html")
    return
  target = pathlib.Path(_OUT.value) if _OUT.value else _common(workdirs)
  entries = runs_page.rewrite(workdirs, print)
  runs_page.write(entries, target)
  print(f"all: {target}")


def _common(workdirs):
  """The page's path, in the folder that has all runs."""
  parents = [path.resolve().parent for path in workdirs]
  place = pathlib.Path(os.path.commonpath(parents)) / "index.html"
  here = pathlib.Path.cwd()
  return place.relative_to(here) if place.is_relative_to(here) else place


def _tiny_runs():
  """Two runs with different initial students."""
  # Else this command would take the flags of a run, and not use them.
  from experiments import run_flags

  parent = pathlib.Path(tempfile.mkdtemp(prefix="ojd-"))
  for init in ("bundled", "random"):
    run_flags.tiny_run(parent / init, stream="synthetic:street", init=init)
  return [parent]


if __name__ == "__main__":
  cli.run(main, takes_words=True)

"""The shape of the house: arrows, circles, words (docs/architecture.md).

Every import counts, also one in a function; one under TYPE_CHECKING does not,
since no program that runs has it.
"""

import ast
import functools
import graphlib
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("ojd", "experiments", "launch")

# What a room may import, beside itself. A room is a folder or a file of ojd/.
# A new room has a row here, as low as it can be.
_SEEN_BY_ALL = "types errors"
_PURE = "xla labels losses metrics schedules costs specs formats processes"
_NETWORKS = f"{_PURE} models updates temporal"
_METHODS = f"{_NETWORKS} tasks pretraining distill systems"
_RUNS = f"{_METHODS} teachers streams network report run"
_APPLICATIONS = f"{_RUNS} serve edge fleet compare"
ROOMS = {
  "types": "",
  "errors": "",
  "xla": "",
  "costs": "",
  "schedules": "",
  "specs": "",
  "processes": "",
  "labels": "",
  "losses": "xla",
  "metrics": "xla",
  "formats": "labels",
  "streams": "labels formats",
  "teachers": "labels formats specs processes",
  "network": "streams",  # for the largest side of a frame
  "models": _PURE,
  "temporal": "metrics models",
  "updates": f"{_PURE} models",
  "tasks": _NETWORKS,
  "distill": f"{_NETWORKS} tasks",
  "pretraining": f"{_NETWORKS} tasks streams",
  "systems": _METHODS,
  "run": _RUNS,
  "report": "labels formats costs",  # a run writes its report
  "serve": _RUNS,
  "edge": _RUNS,
  "fleet": _RUNS,
  "compare": _RUNS,
  "experiments": _APPLICATIONS,
  "launch": f"{_APPLICATIONS} experiments",
}

# Words that the glossary has others for, where no other sense is meant.
WORDS = frozenset(
  """coins company crew desk equipment fences greetings honesty insist judging
  keeper ledger lesson lessons peek pupil purse quirks recalling reception
  reckoned reckoning retell retold rival rivals spreading tally tend trail zeal
  zoo""".split()  # noqa: SIM905
)
# Rooms whose words are not changed yet.
PENDING_WORDS = {}


@functools.cache
def _trees():
  """The syntax tree of every module, by its dotted name."""
  trees = {}
  for package in PACKAGES:
    for path in sorted((ROOT / package).rglob("*.py")):
      parts = path.relative_to(ROOT).with_suffix("").parts
      name = ".".join(parts).removesuffix(".__init__")
      trees[name] = ast.parse(path.read_text(), str(path))
  return trees


def _is_for_types(node):
  return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _nodes(tree):
  """All nodes but those of blocks that only a type checker reads."""
  waiting = [tree]
  while waiting:
    node = waiting.pop()
    if not _is_for_types(node):
      yield node
      waiting += ast.iter_child_nodes(node)


def _imported(tree):
  """Dotted names that a module imports; of names in a module too."""
  for node in _nodes(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "imports are absolute"
      yield node.module
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def _arrows():
  """Modules of ours that each module imports itself, by name."""
  arrows = {}
  for name, tree in _trees().items():
    found = {other for other in _imported(tree) if other in _trees()}
    # `from ojd.run import build` is about ojd.run.build, not about ojd.run.
    arrows[name] = {
      other
      for other in found
      if not any(longer.startswith(f"{other}.") for longer in found)
    } - {name}
  return arrows


def _room(name):
  parts = name.split(".")
  return parts[1] if parts[0] == "ojd" and parts[1:] else parts[0]


def test_arrows_go_one_way():
  wrong = []
  for name, others in _arrows().items():
    room = _room(name)
    if room == "ojd":
      continue  # the public names, lazily
    assert room in ROOMS, f"{room} has no row in ROOMS"
    allowed = {room, *f"{_SEEN_BY_ALL} {ROOMS[room]}".split()}
    wrong += [(name, other) for other in others if _room(other) not in allowed]
  assert not wrong


def test_no_modules_import_each_other():
  arrows = {k: others for k, others in _arrows().items() if k != "ojd"}
  try:
    graphlib.TopologicalSorter(arrows).prepare()
  except graphlib.CycleError as error:
    raise AssertionError(f"a circle: {error.args[1]}") from None


def test_library_reads_no_flags_prints_nothing_and_has_torch_in_one_room():
  wrong = []
  for name, tree in _trees().items():
    if not name.startswith("ojd"):
      continue
    barred = {"absl"}
    if _room(name) != "teachers":
      barred |= {"torch", "torchvision"}
    wrong += [
      (name, other)
      for other in _imported(tree)
      if other.split(".")[0] in barred
    ]
    for node in _nodes(tree):
      if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called == "print" or called.startswith(("sys.stdout", "sys.stderr")):
          wrong.append((name, node.lineno))
  assert not wrong


def _words(tree, name):
  """Words of all identifiers of a module, and of its own name."""
  found = set(name.split("."))
  for node in ast.walk(tree):
    for field in ("id", "attr", "name", "arg", "asname"):
      if isinstance(text := getattr(node, field, None), str):
        found.add(text)
  pieces = (re.findall(r"[A-Z]?[a-z]+", part) for part in found)
  return {word.lower() for piece in pieces for word in piece}


def test_words_are_those_of_the_glossary():
  wrong = []
  for name, tree in _trees().items():
    found = _words(tree, name) & WORDS - PENDING_WORDS.get(
      _room(name), frozenset()
    )
    wrong += [(name, word) for word in found]
  assert not wrong

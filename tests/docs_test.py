"""README.md, docs/ and results/: what they type, run and link to is there."""

import copy
import functools
import os
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap
from typing import NamedTuple
from xml.etree import ElementTree

import jax
import numpy as np
import pytest
import safetensors.numpy

from docs import cli
from ojd import specs, systems, updates
from ojd.compare import spec as compare_spec
from ojd.errors import UserError
from ojd.models import export, pretrained, student
from ojd.run import overlay, sinks
from ojd.streams import base as streams
from ojd.tasks.segmentation import classify
from ojd.teachers import base as teachers
from tests import binaries

ROOT = pathlib.Path(__file__).parents[1]
PAGES = (
  "README.md",
  *sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/*.md")),
  "results/README.md",
)
MOST_LINES = 250  # of the README
# Words in capitals, and variables of a shell, are for the reader to fill in.
BLANK = re.compile(r"\$|\b[A-Z][A-Z0-9]+\b")
TABLES = ((systems, "METHODS"), (streams, "SCHEMES"), (sinks, "SINKS"))
NUMBERS = {"int": int, "float": float}


class Typed(NamedTuple):
  """A command as a page has it."""

  page: str
  module: str
  flags: tuple[tuple[str, str | None], ...]  # names and values

  def __str__(self):
    words = [name if v is None else f"{name}={v}" for name, v in self.flags]
    return f"{self.page}: {self.module} {' '.join(words)}"


def blocks(page, language):
  """The fenced blocks of a page in a language."""
  text = (ROOT / page).read_text()
  found = re.findall(rf"^ *```{language}\n(.*?)```", text, re.DOTALL | re.M)
  return [textwrap.dedent(block) for block in found]


def commands(page):
  """The commands of a page's blocks of shell, as lists of words."""
  for block in blocks(page, "sh"):
    text = block.replace("\\\n", " ")
    for line in text.splitlines():
      words = shlex.shlex(line, posix=True, punctuation_chars=";&|")
      words.whitespace_split = True
      command = []
      for word in [*words, ";"]:
        if set(word) <= set(";&|") or word in ("do", "then"):
          if command:
            yield command
          command = []
        else:
          command.append(word)


@functools.cache
def typed():
  """All commands of this project in all pages."""
  found = []
  for page in PAGES:
    for words in commands(page):
      if words[:2] == ["python", "-m"] or "python" in words[1:2]:
        _, _, module, *rest = words[words.index("python") :]
        pairs = [word.partition("=") for word in rest if word.startswith("-")]
        flags = tuple((name, v if eq else None) for name, eq, v in pairs)
        found.append(Typed(page, module, flags))
  return found


@pytest.fixture(scope="module")
def described():
  """What each command says to --helpxml, by its module."""
  run = lambda module: binaries.run_module(module, "--helpxml").stdout
  return {module: run(module) for module in cli.modules()}


def test_readme_is_short():
  assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES


def test_page_of_commands_is_current(described):
  words = "stale: run python -m docs.cli"
  assert cli.PAGE.read_text() == cli.page(described.__getitem__), words


def test_help_shows_every_flag(described):
  for module, xml in described.items():
    hidden = {
      flag.findtext("name")
      for flag in ElementTree.fromstring(xml).iter("flag")
      if flag.findtext("key") != "yes"
      and flag.findtext("file").startswith(("experiments", "launch"))
    }
    assert hidden == {"debug"}, module


def test_commands_have_the_flags_that_pages_give_them(described):
  known = {
    module: {flag.name: flag for flag in cli.parse(module, xml).flags}
    for module, xml in described.items()
  }
  wrong = []
  for command in typed():
    if command.module not in known:
      if not _is_module(command.module):
        wrong.append(f"{command}: there is no such module")
      continue
    for name, value in command.flags:
      problem = _problem(known[command.module], name, value)
      if problem:
        wrong.append(f"{command}: {name}: {problem}")
  assert len(typed()) > 40 and not wrong, "\n".join(wrong)


def _is_module(name):
  path = ROOT / name.replace(".", "/")
  inside = path.with_suffix(".py").exists() or (path / "__init__.py").exists()
  return inside or name in ("pip", "venv", "pytest", "http")


def _problem(known, word, value):
  """Why a command would refuse a flag; empty where it would not."""
  name = word.lstrip("-")
  if name in ("help", "debug", "flagfile"):
    return ""
  flag = known.get(name) or known.get(name.removeprefix("no"))
  if flag is None:
    return "there is no such flag"
  if value is None:
    has_default = flag.kind == "bool" or "save_masks" in name
    return "" if has_default else "it needs a value"
  if BLANK.search(value):
    return ""
  try:
    _check_value(flag, value)
  except (UserError, ValueError, AssertionError) as error:
    return f"{value}: {error}"
  return ""


def _check_value(flag, value):
  if flag.kind in NUMBERS:
    NUMBERS[flag.kind](value)
  elif "enum" in flag.kind:
    values = flag.meaning.removeprefix("<").partition(">")[0].split("|")
    assert value in values, f"one of {values}"
  elif flag.name == "systems":
    compare_spec.parse_systems(value)
  elif flag.name == "updates":
    for one in value.split(","):
      updates.bind(one)
  elif flag.name == "streams":
    assert not value.endswith(",")
  elif flag.name == "stream":
    streams.parse_address(value)
  elif flag.name == "streams_file" and value.startswith("results/"):
    assert (ROOT / value).exists(), "no such file"
  elif flag.name == "system":
    systems.bind(value)
  elif flag.name == "update":
    updates.bind(value)
  elif flag.name == "model":
    student.bind(value)
  elif flag.name == "teacher" and value.split(":")[0] in teachers.TEACHERS:
    specs.bind(value, teachers.TEACHERS, "teacher")


def test_other_commands_of_the_pages_are_there():
  extras = set(
    re.findall(r'^    "(\w+)": \[', (ROOT / "setup.py").read_text(), re.M)
  )
  for page in PAGES:
    for words in commands(page):
      if words[0].startswith("./"):
        assert os.access(ROOT / words[0], os.X_OK), (page, words)
      for word in words:
        for names in re.findall(r"(?:ojd|\.)\[(.*)\]", word):
          assert set(names.split(",")) <= extras, (page, words)


def test_site_builds_and_no_link_is_broken(tmp_path):
  done = subprocess.run(
    [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path],
    env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "docs" / "cli" / "index.html").exists()
  page = (tmp_path / "index.html").read_text()
  assert "docs/adapted.jpg" in page
  assert not re.findall(r'<(?:script|link|img)[^>]*"https?://', page)


@pytest.mark.parametrize(
  "page", [page for page in PAGES if blocks(page, "python")]
)
def test_python_of_the_pages_runs(page, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  for module, table in TABLES:  # to which examples add rows
    monkeypatch.setattr(module, table, copy.copy(getattr(module, table)))
  if page in MAKES:
    MAKES[page]()
  names = {"__name__": page}
  for number, block in enumerate(blocks(page, "python")):
    assert len(block.splitlines()) < 40, "an example is short"
    if block.startswith("# ") and block.split()[1].endswith(".py"):
      pathlib.Path(block.split()[1]).write_text(block)
    exec(compile(block, f"{page}, block {number}", "exec"), names)
  assert capsys.readouterr().out
  if page in HOLDS:
    HOLDS[page](names)


def _make_export():
  """What the command above the example of docs/replay.md writes."""
  net = student.create("jitnet", 2)
  frame = np.zeros((192, 320, 3), np.uint8)
  params = jax.jit(net.init)(jax.random.key(0), frame)
  answer = lambda p, frame: classify(net.apply(p, frame))
  export.save(pathlib.Path("s.jax"), answer, params, *frame.shape[:2])
  flat = {k: np.asarray(v) for k, v in pretrained.flatten(params).items()}
  safetensors.numpy.save_file(flat, "s.safetensors")


def _holds_export(names):
  net = student.create("jitnet", 2)
  params = jax.jit(net.init)(jax.random.key(0), np.zeros((192, 320, 3), "u1"))
  expected = jax.jit(net.apply)(params, np.zeros((192, 320, 3), "u1"))
  for classes in np.asarray(names["classes"]):
    np.testing.assert_array_equal(classes, expected.argmax(-1))


def _make_masks():
  """What the command above the example of docs/outputs.md writes."""
  place = sinks.Place(pathlib.Path("runs/outputs"), 25.0, ("background", "car"))
  place.path.mkdir(parents=True)
  caption = overlay.Caption(0, True, 0, 8, None, "truth", 0.0)
  frame, classes = np.zeros((48, 64, 3), np.uint8), np.eye(48, 64, dtype="u1")
  files = sinks.MaskFiles(place)
  files.write(overlay.FrameImages(frame, None, classes, caption))


def _holds_masks(names):
  np.testing.assert_array_equal(names["classes"], np.eye(48, 64))


def _holds_runs(names):
  assert 0 < names["summary"]["num_key_frames"] < 40
  assert pathlib.Path("runs/sports/summary.json").exists()
  assert len(names["cells"]) == 2


def _holds_learning(names):
  assert names["t"] == 39 and float(names["info"].miou_after) > 0.5


# By page: what its commands leave for its examples, and what must come out.
MAKES = {"docs/replay.md": _make_export, "docs/outputs.md": _make_masks}
HOLDS = {
  "README.md": _holds_learning,
  "docs/outputs.md": _holds_masks,
  "docs/python.md": _holds_runs,
  "docs/replay.md": _holds_export,
}


def test_prose_has_the_words_of_the_glossary():
  kinds = ("py", "html", "js", "toml")
  code = [
    path.relative_to(ROOT).as_posix()
    for room in ("ojd", "experiments", "launch", "docs")
    for path in (ROOT / room).rglob("*.*")
    if path.suffix[1:] in kinds
  ]
  wrong = {
    (page, word)
    for page in (*PAGES, *code)
    for word in re.findall(r"[a-z]+", _prose(page).lower())
    if word in NOT_OUR_WORDS
  }
  assert len(code) > 200 and not wrong


NOT_OUR_WORDS = frozenset(
  """coins crew desk fences greetings insist keeper ledger learnt lesson
  lessons peek pupil purse quirks recalling reckoned reckoning retell retold
  rival rivals tally told unlearnt zeal""".split()  # noqa: SIM905
)


def _prose(page):
  text = (ROOT / page).read_text()
  return re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)

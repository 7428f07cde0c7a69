"""Texts of methods and their options, read by the signatures they call."""

from typing import Annotated, Literal

import pytest

from ojd import specs
from tests.reference.refusals import refused


def _base(student, *, fps, rate: specs.Positive = 0.5, count: specs.Count = 8):
  """A base.

  Args:
    student: given by the caller.
    fps: given by the caller.
    rate: how fast; the words
      go on here.
    count: how many.
  """
  return "base", student, fps, rate, count


@specs.extends(_base, without=("count",))
def _more(
  student,
  *,
  kind: Literal["a", "b"] = "a",
  is_on: bool = False,
  path: str = "",
  limit: Annotated[int, specs.Range(1, 4)] | None = None,
  hook: object = print,
  **rest,
):
  """More than
  a base.

  Args:
    kind: which one.

  Returns:
    nothing: of interest.
  """
  return student, kind, is_on, path, limit, rest


_TABLE = {
  "base": specs.Entry(_base),
  "more": specs.Entry(_more, {"quick": specs.Preset({"rate": 2.0})}),
}


def _bind(text, **given):
  return specs.bind(text, _TABLE, "system", given)


@pytest.mark.parametrize(
  ("text", "shortest", "options"),
  [
    ("base", "base", {"rate": 0.5, "count": 8}),
    ("base:rate=0.1234567890123:count=3", None, {"count": 3}),
    ("more:kind=b:is_on=yes", "more:kind=b:is_on=true", {"is_on": True}),
    ("more:limit=3:rate=1e-3", "more:limit=3:rate=0.001", {"limit": 3}),
    ("more:limit=none", "more", {"limit": None, "kind": "a", "path": ""}),
    ("more:quick", None, {"rate": 2.0}),
    ("more:quick:rate=2", "more:quick", {"rate": 2.0}),
    ("more:quick:rate=3", "more:quick:rate=3.0", {"rate": 3.0}),
    # A value keeps its colons.
    ("more:path=raft:C:/x:kind=b", None, {"path": "raft:C:/x", "kind": "b"}),
  ],
)
def test_options_are_read_by_their_types(text, shortest, options):
  bound = _bind(text)
  assert bound.options | options == bound.options
  assert _bind(str(bound)).options == bound.options
  assert shortest in (None, str(bound))


def test_what_is_bound_is_made():
  made = _bind("base").make("s", fps=25)
  assert made == ("base", "s", 25, 0.5, 8)
  assert _bind("more:quick", rate=4.0).options["rate"] == 4.0
  # Defaults of the base are handed on.
  assert _more("s", fps=25)[-1] == {"fps": 25, "rate": 0.5}
  assert _more("s", fps=25, rate=2.0)[-1]["rate"] == 2.0


@pytest.mark.parametrize(
  "text, words",
  [
    ("", "NAME"),
    ("a-b", "NAME"),
    ("nothing", "unknown; known are base, more"),
    ("base:quick", "base has no preset 'quick'; it has none"),
    ("more:slow", "it has more:quick"),
    ("base:kind=a", "base has no option 'kind'; it has rate, count"),
    ("base:fps=3", "no option 'fps'"),
    ("more:hook=x", "no option 'hook'"),
    ("more:count=3", "no option 'count'"),
    ("base:rate=1:rate=2", "rate is given twice"),
    ("base:rate=1:", "number, above 0"),
    ("base::rate=1", "'' is no OPTION=VALUE"),
    ("base:rate=fast", "number, above 0"),
    ("base:rate=0", "number, above 0"),
    ("base:rate=nan", "number, above 0"),
    ("base:rate=inf", "number, above 0"),
    ("base:count=2.5", "integer, at least 1"),
    ("base:count=0", "integer, at least 1"),
    ("more:kind=c", "one of a, b"),
    ("more:is_on=maybe", "true or false"),
    ("more:limit=5", "integer, from 1 to 4, or none"),
  ],
)
def test_a_bad_text_is_one_line(text, words):
  with refused(f"--system={text}", words):
    _bind(text)


@pytest.mark.parametrize(
  ("text", "flags", "words"),
  [
    ("base", {"kind": "a"}, "--kind=a: base has no option 'kind'"),
    ("base:rate=2", {"rate": 1.0}, "--rate=1.0: --system=base:rate=2 has"),
    ("base", {"rate": -1.0}, "--rate=-1.0: number, above 0"),
  ],
)
def test_a_flag_that_the_method_lacks_is_refused(text, flags, words):
  with refused(words):
    _bind(text, **flags)


def test_help_is_made_of_the_docstrings():
  text = specs.describe(_TABLE)
  assert "base: A base\n" in text and "more: More than a base\n" in text
  assert "  more:quick  rate=2.0\n" in text
  assert "rate=0.5  how fast; the words go on here. (number, above 0)" in text
  assert "kind=a  which one. (a|b)" in text
  assert "interest" not in text and "hook" not in text

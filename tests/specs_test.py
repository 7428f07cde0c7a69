from typing import Annotated, Literal

import pytest

from ojd import specs
from ojd.errors import UserError


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


def test_defaults_come_from_the_signature():
  bound = _bind("base")
  assert bound.options == {"rate": 0.5, "count": 8}
  assert bound.make("s", fps=25) == ("base", "s", 25, 0.5, 8)
  assert str(bound) == "base"


def test_options_are_read_by_their_types():
  bound = _bind("more:kind=b:is_on=yes:limit=3:rate=1e-3")
  assert bound.options == {
    **{"kind": "b", "is_on": True, "path": "", "limit": 3, "rate": 0.001}
  }
  assert str(bound) == "more:kind=b:is_on=true:limit=3:rate=0.001"
  assert _bind("more:limit=none").options["limit"] is None


def test_defaults_of_the_base_are_handed_on():
  rest = _more("s", fps=25)[-1]
  assert rest == {"fps": 25, "rate": 0.5}
  assert _more("s", fps=25, rate=2.0)[-1]["rate"] == 2.0


def test_a_preset_gives_way_to_an_option():
  assert _bind("more:quick").options["rate"] == 2.0
  assert _bind("more:quick:rate=3").options["rate"] == 3.0
  assert _bind("more:quick", rate=4.0).options["rate"] == 4.0
  assert str(_bind("more:quick:rate=2")) == "more:quick"


def test_a_value_keeps_its_colons():
  assert _bind("more:path=raft:C:/x:kind=b").options["path"] == "raft:C:/x"


def test_the_shortest_text_binds_to_the_same():
  for text in ("more:quick:is_on=1", "base:rate=0.1234567890123:count=3"):
    bound = _bind(text)
    assert _bind(str(bound)) == bound


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
    ("base:rate=1:", "integer|number"),
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
  with pytest.raises(UserError) as error:
    _bind(text)
  message = str(error.value)
  assert message.startswith(f"--system={text}") and "\n" not in message
  assert any(word in message for word in words.split("|"))


def test_a_flag_that_the_method_lacks_is_refused():
  with pytest.raises(UserError, match="--kind=a: base has no option 'kind'"):
    _bind("base", kind="a")
  with pytest.raises(UserError, match="--rate=1.0: --system=base:rate=2 has"):
    _bind("base:rate=2", rate=1.0)
  with pytest.raises(UserError, match="--rate=-1.0: number, above 0"):
    _bind("base", rate=-1.0)


def test_help_is_made_of_the_docstrings():
  text = specs.describe(_TABLE)
  assert "base: A base\n" in text and "more: More than a base\n" in text
  assert "  more:quick  rate=2.0\n" in text
  assert "rate=0.5  how fast; the words go on here. (number, above 0)" in text
  assert "kind=a  which one. (a|b)" in text
  assert "interest" not in text and "hook" not in text

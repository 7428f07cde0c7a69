"""Templates: whole pages or none, and no text in them is markup."""

import jinja2
import pytest

from ojd.report import pages

WHOLE = {
  **{"title": "<b>", "charts": [], "systems": [], "notes": []},
  **{"failures": [], "updates": None, "columns": [], "runs": []},
  **{"command": "a && b", "tables": [{"title": "mIoU", "parts": []}]},
}


def test_a_missing_value_raises_and_leaves_what_was_there(tmp_path):
  target = tmp_path / "report" / "index.html"
  pages.write(target, "comparison.html", **WHOLE)
  before = target.read_text()
  assert "&lt;b&gt;" in before and "a &amp;&amp; b" in before
  assert pages.is_ours(target)
  for name in WHOLE:
    content = {k: value for k, value in WHOLE.items() if k != name}
    with pytest.raises(jinja2.UndefinedError, match=name):
      pages.write(target, "comparison.html", **content)
  assert target.read_text() == before
  assert list(target.parent.iterdir()) == [target]


def test_assets_hold_nothing_that_ends_their_element():
  for name in ("report.css", "report.js", "index.js"):
    assert "</" not in pages.asset(name)

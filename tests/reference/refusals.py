"""A refusal is one line that says what is wrong."""

import contextlib

import pytest

from ojd.errors import UserError


@contextlib.contextmanager
def refused(*words):
  """Expects a `UserError` of one line, and all the words in it."""
  with pytest.raises(UserError) as error:
    yield error
  text = str(error.value)
  assert text and "\n" not in text and len(text) < 2000
  for word in words:
    assert word in text

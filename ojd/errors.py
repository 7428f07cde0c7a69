"""The one error a person can cause and mend: bad input, told in one line."""


class RequestError(ValueError):
  """What was asked for cannot be done; the message says what is wrong and what to do (exit code 2)."""

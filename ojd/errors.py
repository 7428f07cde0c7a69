"""The one error a person can cause and mend, in one line."""


class UserError(ValueError):
  """What was asked for cannot be done: what is wrong, and what to do."""

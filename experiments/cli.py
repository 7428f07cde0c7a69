"""What all binaries share: flags, errors in one line, Ctrl-C."""

import os
import pathlib
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

from absl import app, flags, logging

from ojd.errors import UserError

BAD_REQUEST, FAILURE = 2, 1  # exit codes

_DEBUG = flags.DEFINE_bool("debug", False, "show the traceback of an error")


def run(main: Callable[..., int | None], *, takes_words: bool = False) -> None:
  """Parses the flags, calls `main`, turns its errors into one line.

  Args:
    main: called without arguments, or with a list of words.
    takes_words: whether there may be words beside the flags.
  """
  # Else jax warns of every accelerator that is missing.
  logging.set_verbosity(logging.WARNING)
  # Else a flag after a word would be a word.
  flags.FLAGS.set_gnu_getopt(takes_words)
  words = lambda argv: (argv[1:],) if takes_words else ()
  app.run(
    lambda argv: sys.exit(_guarded(lambda: main(*words(argv)))),
    flags_parser=lambda argv: _parse(argv, takes_words),
  )


def _parse(argv, takes_words):
  """absl's parser; a wrong flag or a stray word is one line and exit code 2."""
  try:
    rest = flags.FLAGS(argv)
  except SystemExit as end:
    # absl leaves --help with a 1.
    is_help = any(word.lstrip("-").startswith("help") for word in argv)
    sys.exit(0 if is_help else end.code)
  except flags.Error as error:
    _fail(str(error).splitlines()[0], BAD_REQUEST)
  if len(rest) > 1 and not takes_words:
    _fail(f"unknown argument {rest[1]!r}; flags are --name=value", BAD_REQUEST)
  return rest


def _fail(message, code):
  print(f"error: {message}", file=sys.stderr)
  sys.exit(code)


def tell(error: Exception) -> int:
  """Prints an error in one line; returns its exit code."""
  if _DEBUG.value:
    traceback.print_exception(error)
  if isinstance(error, UserError):
    print(f"error: {error}", file=sys.stderr)
    return BAD_REQUEST
  words = " ".join(str(error).split())
  name = type(error).__name__
  print(f"error: {name}: {words} (--debug shows more)", file=sys.stderr)
  return FAILURE


def _guarded(main):
  try:
    return main()
  except KeyboardInterrupt:
    sys.stdout.flush()
    # A compilation may be under way in a thread: unloading everything beneath
    # it would crash.
    os._exit(128 + signal.SIGINT)
  except Exception as error:
    return tell(error)


def note(words: str) -> None:
  """Prints what happens beside."""
  print(words, file=sys.stderr)


def training_folder(path: str, is_smoke: bool) -> pathlib.Path:
  """The folder of --workdir, made; with --smoke a new one, where none is given.

  Args:
    path: the value of --workdir.
    is_smoke: whether it may be missing.
  """
  if not path and not is_smoke:
    raise UserError("--workdir=DIR is missing: the folder of the training")
  folder = pathlib.Path(path or tempfile.mkdtemp(prefix="ojd-"))
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"--workdir={folder}: {error.strerror}") from None
  return folder


class Interrupt:
  """Turns the first Ctrl-C or SIGTERM into a request that the run polls.

  A second one interrupts at once.
  """

  def __init__(self):
    self.signal: int | None = None
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, self._note)

  def _note(self, number, frame):
    del frame
    if self.signal is not None:
      raise KeyboardInterrupt
    self.signal = number
    message = b"stopping at the next frame; once more stops at once\n"
    os.write(sys.stderr.fileno(), message)

  def is_wanted(self) -> bool:
    """Whether the run should end."""
    return self.signal is not None

  def exit_code(self) -> int:
    """0, or what shells expect of a program that a signal ended."""
    return 128 + self.signal if self.signal is not None else 0

"""The persistent compilation cache, and memory that the compiler leaves."""

import contextlib
import ctypes
import os
import pathlib

import jax


def default_cache() -> pathlib.Path | None:
  """`$XDG_CACHE_HOME/ojd/jax`, else in `~/.cache`; None without a home."""
  base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  try:
    return pathlib.Path(base).expanduser() / "ojd" / "jax"
  except RuntimeError:
    return None


def enable_cache(path: pathlib.Path | None) -> None:
  """Keeps compiled programs in `path`; does nothing where that fails.

  Only its owner may write there, since cached programs are run unchecked.
  """
  if path is None:
    return
  try:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
  except OSError:
    return
  jax.config.update("jax_compilation_cache_dir", str(path))
  # Also the small ones: a start is made of a dozen of them.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def return_memory() -> None:
  """Returns memory that the compiler freed to the operating system.

  About 400 MB after a student at 720x1280; does nothing without glibc.
  """
  with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL("libc.so.6").malloc_trim(0)

"""The persistent compilation cache, and the compiler's freed memory."""

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
  """Keeps compiled programs in `path`; does nothing if that fails.

  Only the owner may write there, since cached programs run unchecked.
  """
  if path is None:
    return
  try:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
  except OSError:
    return
  jax.config.update("jax_compilation_cache_dir", str(path))
  # Small programs are cached too: a run starts with a dozen of them.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def return_memory() -> None:
  """Gives memory that the compiler has freed back to the operating system.

  That is about 400 MB for a student at 720x1280. Does nothing without glibc.
  """
  with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL("libc.so.6").malloc_trim(0)

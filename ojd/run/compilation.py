"""What compilation leaves: a cache, one folder per user, and free memory."""

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
  """Keeps compiled programs in `path`; where that cannot be, does nothing.

  Only its owner may write there: a cached program is run unseen.
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
  """Gives the system back what the compiler held and the C library keeps.

  Some 400 MB after a student of 720x1280; elsewhere than on glibc, nothing.
  """
  with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL("libc.so.6").malloc_trim(0)

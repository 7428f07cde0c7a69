"""Waiting for what threads and processes do, no longer than it may take."""

import time

import psutil


def until(condition, seconds=20.0):
  """Waits until something is so, and returns it; fails if it never is."""
  deadline = time.monotonic() + seconds
  while not (found := condition()):
    assert time.monotonic() < deadline, "it did not come to be"
    time.sleep(0.005)
  return found


def is_gone(pid: int) -> bool:
  """Ended; one that nobody has waited for has ended as well."""
  try:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return True

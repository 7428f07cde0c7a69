"""Starts a binary of `experiments` as a person does."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def run(name: str, *flags: str) -> subprocess.CompletedProcess:
  """`python -m experiments.NAME FLAGS`, with its output as text."""
  return subprocess.run(
    [sys.executable, "-m", f"experiments.{name}", *flags],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )

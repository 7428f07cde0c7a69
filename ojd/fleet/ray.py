"""Joins a Ray cluster, or fails within half a minute with the reason."""

import importlib.util
import logging
import os
import secrets
import socket
import subprocess
import sys
from typing import Any

from ojd.errors import UserError

AUTO, LOCAL = "auto", "local"
_TCP_SECONDS, _ANSWER_SECONDS = 5.0, 30.0
# Ray waits for minutes for what does not speak its language; so it is tried in
# a process that can be ended.
_TRY = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False)"


def connect(
  address: str, flag: str = "ray", num_cpus: int | None = None
) -> None:
  """Joins the cluster at an address; once per process.

  A cluster of `local` listens on this machine's loopback alone, and demands a
  token that its processes inherit: no other host and no other user reaches it.

  Args:
    address: `auto`, the one that runs on this machine; HOST:PORT; or `local`,
      one that starts here and ends with this process.
    flag: its flag, for errors.
    num_cpus: of a cluster that starts here; None for all.
  """
  if importlib.util.find_spec("ray") is None:
    raise UserError(f"--{flag} needs the package ray: pip install 'ojd[ray]'")
  options: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": logging.ERROR,
  }
  if address == LOCAL:
    _set_local_environment()
    # Named, or it would look for another one, which may be long gone.
    options |= {"include_dashboard": False, "num_cpus": num_cpus}
  import ray

  if ray.is_initialized():
    return
  if address not in (AUTO, LOCAL):
    _check_open(address, flag)
  if address != LOCAL:
    _try(address, flag)
  ray.init(address=address, **options)


def _set_local_environment():
  """For a cluster on loopback with a token; Ray reads it at its import."""
  if "ray" in sys.modules:
    if sys.modules["ray"].is_initialized():
      return
    raise RuntimeError("a local cluster is begun before ray is imported")
  os.environ |= {
    # Of all systems: without it a cluster has one node, at 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
  }


def _check_open(address, flag):
  """Raises unless something listens at HOST:PORT."""
  host, _, port = address.rpartition(":")
  if not host or not port.isdecimal() or not 0 < int(port) < 65536:
    raise UserError(f"--{flag}={address}: auto, local or HOST:PORT")
  try:
    socket.create_connection(
      (host.strip("[]"), int(port)), _TCP_SECONDS
    ).close()
  except OSError as error:
    words = error.strerror or "it does not answer"
    raise UserError(f"--{flag}={address}: {words}") from None


def _try(address, flag):
  """Raises unless a cluster of this version answers."""
  try:
    tried = subprocess.run(
      [sys.executable, "-c", _TRY, address],
      capture_output=True,
      timeout=_ANSWER_SECONDS,
      check=False,
    )
  except subprocess.TimeoutExpired:
    raise UserError(
      f"--{flag}={address}: no Ray cluster answers within {_ANSWER_SECONDS:g} s"
    ) from None
  if tried.returncode:
    lines = tried.stderr.decode(errors="replace").strip().splitlines()
    words = (lines or ["no Ray cluster"])[-1].rpartition("Error: ")[2]
    raise UserError(f"--{flag}={address}: {words.partition('. ')[0]}")


def check_gpus(wanted: float, flag: str) -> None:
  """Raises a UserError if a GPU is wanted and no node has one."""
  import ray

  if not wanted:
    return
  most = max(
    (n["Resources"].get("GPU", 0) for n in ray.nodes() if n["Alive"]), default=0
  )
  if wanted > most:
    there = f"at most {most:g}" if most else "none"
    raise UserError(
      f"--{flag}={wanted:g}: the nodes of the cluster have {there}"
    )

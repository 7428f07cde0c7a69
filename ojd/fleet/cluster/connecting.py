"""To a Ray cluster, or why there is none, within half a minute."""

import importlib.util
import logging
import socket
import subprocess
import sys
from typing import Any

from ojd.errors import UserError

AUTO, LOCAL = "auto", "local"
_TCP_SECONDS, _ANSWER_SECONDS = 5.0, 30.0
# What does not speak Ray's language is waited for, for minutes, in vain; so it
# is tried where it can be ended.
_TRY = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False)"


def connect(
  address: str, flag: str = "ray", num_cpus: int | None = None
) -> None:
  """Joins the cluster at an address; once per process.

  Args:
    address: `auto`, the one that runs on this machine; HOST:PORT; or `local`,
      one that begins here and ends with this process.
    flag: that named it, for errors.
    num_cpus: of a cluster that begins here; None for all there are.
  """
  if importlib.util.find_spec("ray") is None:
    raise UserError(f"--{flag} needs the package ray: pip install 'ojd[ray]'")
  import ray

  if ray.is_initialized():
    return
  options: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": logging.ERROR,
  }
  if address == LOCAL:
    # Named, or it would look for another one, which may be long gone.
    options |= {"address": LOCAL, "include_dashboard": False}
    ray.init(num_cpus=num_cpus, **options)
    return
  if address != AUTO:
    _check_open(address, flag)
  _try(address, flag)
  ray.init(address=address, **options)


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
  """Raises a UserError unless some node has a GPU, where one is wanted."""
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

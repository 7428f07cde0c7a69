"""Flags of a training over several devices, and over several hosts."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

import jax
from absl import flags
from jax.sharding import Mesh

from experiments import cli
from ojd.errors import UserError
from ojd.pretraining import data_parallel

AUTO = "auto"

_DEVICES = flags.DEFINE_integer(
  "devices",
  None,
  "number of devices of this host to train on, on a CPU its cores; empty: all",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  "",
  "HOST:PORT of process 0, or auto under Slurm and MPI: train on several hosts",
)
_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "number of hosts, with one process each"
)
_PROCESS = flags.DEFINE_integer(
  "process_id", None, "number of this host's process, from 0"
)
_SECONDS = flags.DEFINE_integer(
  "join_seconds",
  300,
  "seconds that the hosts wait for one another at the start",
)


@contextlib.contextmanager
def joined() -> Iterator[Mesh | None]:
  """Joins the hosts; the mesh of all their devices, None if that is one.

  A host that fails ends at once: else it would wait at its end for all others,
  which wait for it in the middle of a step.
  """
  _check()
  if _DEVICES.value is not None:  # before jax looks for devices
    jax.config.update("jax_num_cpu_devices", _DEVICES.value)
  if _COORDINATOR.value:
    _join()
  try:
    yield _mesh()
  except Exception as error:
    if not jax.distributed.is_initialized():
      raise
    code = cli.tell(error)
    sys.stdout.flush()
    os._exit(code)
  if jax.distributed.is_initialized():
    jax.distributed.shutdown()


def are_hosts() -> bool:
  """Whether several hosts were asked for."""
  return bool(_COORDINATOR.value)


def _check():
  if _DEVICES.value is not None and _DEVICES.value < 1:
    raise UserError(f"--devices={_DEVICES.value}: at least 1")
  if _SECONDS.value < 1:
    raise UserError(f"--join_seconds={_SECONDS.value}: at least 1")
  address, num, which = _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
  if address in ("", AUTO):
    if (num, which) != (None, None):
      raise UserError(
        "--num_processes and --process_id go with --coordinator=HOST:PORT"
      )
    return
  host, _, port = address.rpartition(":")
  if not host or not (port.isdecimal() and 0 < int(port) < 65536):
    raise UserError(f"--coordinator={address}: HOST:PORT or {AUTO}")
  if num is None or which is None:
    raise UserError(
      f"--coordinator={address}: --num_processes and --process_id are missing"
    )
  if not 0 <= which < num:
    raise UserError(
      f"--process_id={which} of --num_processes={num}: count from 0"
    )


def _join():
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  # Else jax would handle SIGTERM.
  jax.config.update("jax_enable_preemption_service", False)
  where = {}
  if _COORDINATOR.value != AUTO:
    where = {
      "coordinator_address": _COORDINATOR.value,
      "num_processes": _PROCESSES.value,
      "process_id": _PROCESS.value,
      "cluster_detection_method": "deactivate",
    }
  # jax itself would crash if a host is missing.
  timer = threading.Timer(_SECONDS.value, _give_up)
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.initialize(
      **where, initialization_timeout=_SECONDS.value + 60
    )
  except ValueError as error:
    raise UserError(
      f"--coordinator={_COORDINATOR.value}: {error} Without Slurm or MPI say "
      "HOST:PORT, --num_processes and --process_id"
    ) from None
  finally:
    timer.cancel()


def _give_up():
  print(
    f"error: not all hosts joined --coordinator={_COORDINATOR.value} within "
    f"{_SECONDS.value} s; is process 0 there, and every other?",
    file=sys.stderr,
    flush=True,
  )
  os._exit(cli.FAILURE)


def _mesh():
  asked = _DEVICES.value
  hosts = [
    jax.local_devices(process_index=i) for i in range(jax.process_count())
  ]
  counts = [len(devices) for devices in hosts]
  if len(set(counts)) > 1:
    raise UserError(
      f"the hosts have {', '.join(map(str, counts))} devices: each needs as "
      "many as the others"
    )
  if asked is not None and asked > counts[0]:
    raise UserError(f"--devices={asked}: there are {counts[0]} here")
  chosen = [device for devices in hosts for device in devices[:asked]]
  return data_parallel.mesh_of(chosen) if len(chosen) > 1 else None

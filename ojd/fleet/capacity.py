"""How many streams a machine has room for."""

import os
import pathlib
import resource
from collections.abc import Sequence

import jax
import numpy as np

from ojd.errors import UserError
from ojd.run import build
from ojd.run.build import Job

# Of a lane's state: in its engine, on its way to a checkpoint, and read there.
_STATES = 3
# Decoded ahead, at hand, on the way to the device and to files.
_FRAMES, _BYTES_PER_PIXEL = 12, 4
# Threads, logs and a decoder, as measured over runs of one to thirty-two.
_BYTES_PER_STREAM = 24 << 20
_FILES_PER_STREAM = 12
_SHARE = 0.9  # of what is free; the rest is for what comes later
_MEMINFO = pathlib.Path("/proc/meminfo")
_CGROUP = pathlib.Path("/sys/fs/cgroup")


def bytes_of(job: Job) -> tuple[int, int]:
  """What a stream takes while it runs: of a device's memory, of the host's."""
  state = sum(_size(x) for x in jax.tree.leaves(build.abstract_state(job)))
  spec = job.stream.spec
  frames = _FRAMES * _BYTES_PER_PIXEL * spec.height * spec.width
  return state, (_STATES - 1) * state + frames + _BYTES_PER_STREAM


def _size(x):
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    return x.size * 16
  return x.size * np.dtype(x.dtype).itemsize


def check(jobs: Sequence[Job], free: tuple[int, int] | None = None) -> None:
  """Raises a UserError unless all streams can run at once.

  Args:
    jobs: of the streams.
    free: bytes of the devices and of the host; None: those there are.
  """
  on_device, on_host = free or (free_on_devices(), free_on_host())
  needs = [bytes_of(job) for job in jobs]
  if jax.default_backend() == "cpu":  # whose memory is the host's
    needs = [(0, sum(need)) for need in needs]
  for place, room, part in (("GPU", on_device, 0), ("main", on_host, 1)):
    sums = np.cumsum([need[part] for need in needs])
    fitting = int(np.searchsorted(sums, _SHARE * room, side="right"))
    if fitting < len(jobs):
      raise UserError(
        f"--streams: {len(jobs)} streams take {sums[-1] / 1e9:.1f} GB of "
        f"{place} memory, and {room / 1e9:.1f} GB are free: {fitting} fit; "
        "share them between machines (--ray), or make --height and --width "
        "smaller"
      )


def allow_files(num_streams: int) -> None:
  """Lets the process have as many files open as it will need, if it may."""
  wanted = 256 + _FILES_PER_STREAM * num_streams
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if hard != resource.RLIM_INFINITY and wanted > hard:
    fitting = max((hard - 256) // _FILES_PER_STREAM, 0)
    raise UserError(
      f"--streams: {num_streams} streams have {wanted} files open, and {hard} "
      f"are allowed here: {fitting} streams fit; `ulimit -Hn` is the limit"
    )
  if soft != resource.RLIM_INFINITY and wanted > soft:
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def free_on_devices() -> int:
  """Bytes that all accelerators together can still give."""
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  return sum(s.get("bytes_limit", 0) - s.get("bytes_in_use", 0) for s in stats)


def free_on_host() -> int:
  """Bytes that this process can still have."""
  free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  if _MEMINFO.exists():
    lines = dict(x.split(":", 1) for x in _MEMINFO.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) << 10
  try:
    limit = (_CGROUP / "memory.max").read_text().strip()
    used = (_CGROUP / "memory.current").read_text().strip()
  except OSError:
    return free
  return free if limit == "max" else min(free, int(limit) - int(used))

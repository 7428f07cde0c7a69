"""The weights of each device on the server's disk, for a restarted server.

A file for each session, `HEX.safetensors`, replaced in one step. If there are
too many, the oldest are deleted.
"""

import contextlib
import pathlib

import numpy as np
import safetensors
import safetensors.numpy

from ojd.errors import UserError
from ojd.formats.replacing import replacing
from ojd.network.messages import WireError
from ojd.network.weights import Layout, Weights, check_layout

_ENDING = ".safetensors"


class Store:
  """The weights of sessions in a folder."""

  def __init__(self, folder: pathlib.Path, max_files: int):
    """Makes the folder, or raises a UserError."""
    self._folder, self._max_files = folder, max_files
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UserError(
        f"--workdir: {folder} cannot be made: {error.strerror}"
      ) from None

  def save(self, session: bytes, held: Weights) -> None:
    """Writes a device's weights; an OSError leaves the old file."""
    about = {"version": str(held.version), "layout": held.layout.digest.hex()}
    arrays = {k: np.ascontiguousarray(v) for k, v in held.params.items()}
    try:
      with replacing(self._path(session)) as beside:
        safetensors.numpy.save_file(arrays, beside, about)
    except safetensors.SafetensorError as error:
      raise OSError(str(error)) from None
    self._thin()

  def load(self, session: bytes, layout: Layout) -> Weights | None:
    """The last weights; None if there are none of this layout.

    Raises:
      WireError: the file is damaged.
    """
    path = self._path(session)
    if not path.is_file():
      return None
    try:
      with safetensors.safe_open(path, "numpy") as file:
        about = file.metadata() or {}
        if about["layout"] != layout.digest.hex():
          return None
        version = int(about["version"])
        params = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
      check_layout(params, layout)
    except (OSError, safetensors.SafetensorError, KeyError, ValueError):
      raise WireError(f"{path} is damaged") from None
    return Weights(params, layout, version)

  def _path(self, session):
    return self._folder / (session.hex() + _ENDING)

  def _thin(self):
    paths = list(self._folder.glob(f"*{_ENDING}"))
    if len(paths) <= self._max_files:
      return
    paths.sort(key=lambda path: path.stat().st_mtime_ns)
    for path in paths[: len(paths) - self._max_files]:
      with contextlib.suppress(OSError):
        path.unlink()

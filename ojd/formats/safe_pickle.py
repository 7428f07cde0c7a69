"""Reads pickled numpy arrays without letting the file call anything.

A pickle is a program: it names functions and has them called. Here every name
that numpy's own pickles use stands for a small recorder in this file, and any
other name is refused, so that no function of numpy, let alone of Python, runs
on untrusted arguments. Arrays are built afterwards, on demand, from what was
recorded.
"""

import math
import pickle
import re
import warnings
from typing import Any, BinaryIO

import numpy as np

# Numbers and truth values of known width, and objects.
_DTYPE = re.compile(r"(b1|[iu][1248]|f[248]|O8?)")


class Array:
  """An array, or a scalar, as it was pickled; `value` checks and builds it."""

  __slots__ = ("_state",)

  def __init__(self, state=None):
    self._state = state

  def __setstate__(self, state):
    self._state = state

  def _parts(self):
    """(shape, dtype name, is Fortran, data), or ValueError."""
    state = self._state
    if not isinstance(state, tuple) or len(state) not in (4, 5):
      raise ValueError("an array without content")
    shape, dtype, is_fortran, data = state[-4:]
    if not isinstance(shape, tuple) or not all(
      type(side) is int and 0 <= side < 2**31 for side in shape
    ):
      raise ValueError("an array of no shape")
    if not isinstance(dtype, _Dtype):
      raise ValueError("an array of no type")
    return shape, dtype.text(), is_fortran, data

  def objects(self) -> list[Any]:
    """The content of an array of objects, in order."""
    shape, dtype, _, data = self._parts()
    if dtype[1] != "O" or not isinstance(data, list):
      raise ValueError("not an array of objects")
    if len(data) != math.prod(shape):
      raise ValueError("an array whose shape does not fit its content")
    return data

  def value(self) -> np.ndarray:
    """The array of numbers."""
    shape, dtype, is_fortran, data = self._parts()
    if dtype[1] == "O":
      raise ValueError("objects where numbers belong")
    if isinstance(data, str):  # how bytes of Python 2 arrive
      data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
      raise ValueError("an array without bytes")
    kind = np.dtype(dtype)
    if len(shape) > 8 or len(data) != math.prod(shape) * kind.itemsize:
      raise ValueError("an array whose shape does not fit its bytes")
    flat = np.frombuffer(data, kind)
    return flat.reshape(shape, order="F" if is_fortran else "C")


class _Dtype:
  """The type of an array; its byte order comes with the state."""

  __slots__ = ("_name", "_order")

  def __init__(self, name):
    self._name, self._order = name, "|"

  def __setstate__(self, state):
    is_plain = isinstance(state, tuple) and len(state) >= 2
    self._order = state[1] if is_plain else None

  def text(self) -> str:
    """As numpy writes it, `<f8`."""
    name, order = self._name, self._order
    if not (isinstance(name, str) and _DTYPE.fullmatch(name)):
      raise ValueError(f"an array of {name!r}")
    if not (isinstance(order, str) and order in ("<", ">", "|", "=")):
      raise ValueError(f"an array of byte order {order!r}")
    return order + name


class _Callable:
  """What a name of the pickle stands for: called, but never changed."""

  __slots__ = ("_make",)

  def __init__(self, make):
    self._make = make

  def __call__(self, *args):
    return self._make(*args)

  def __setstate__(self, state):
    raise pickle.UnpicklingError("it changes what is not its own")


def _scalar(dtype, data):
  return Array(((), dtype, False, data))


def _from_buffer(data, dtype, shape, order):
  return Array((shape, dtype, order == "F", data))


def _encode(text, encoding):
  """How Python 3 writes bytes in old protocols."""
  if not isinstance(text, str) or encoding != "latin1":
    raise pickle.UnpicklingError("bytes in an odd encoding")
  return text.encode("latin1")


def _names():
  """(module, name) -> what is called in its place."""
  names = {
    ("numpy", "ndarray"): lambda *args: Array(),
    ("numpy", "dtype"): lambda name, *flags: _Dtype(name),
    ("_codecs", "encode"): _encode,
    # No bytes at all, in old protocols.
    ("__builtin__", "bytes"): lambda: b"",
    ("builtins", "bytes"): lambda: b"",
  }
  for core in ("numpy.core", "numpy._core"):  # of numpy 1 and of numpy 2
    names[f"{core}.multiarray", "_reconstruct"] = lambda *args: Array()
    names[f"{core}.multiarray", "scalar"] = _scalar
    names[f"{core}.numeric", "_frombuffer"] = _from_buffer
  return names


_NAMES = _names()


class _Unpickler(pickle.Unpickler):
  """Knows the names above, and none else."""

  def find_class(self, module, name):
    if (module, name) not in _NAMES:
      raise pickle.UnpicklingError(f"it asks for {module}.{name}")
    return _Callable(_NAMES[module, name])


def load_object(file: BinaryIO) -> Any:
  """The one object of a `.npy` file written by `np.save(path, an_object)`.

  Returns:
    Python containers and numbers as they are, and an Array for each array and
    each numpy scalar inside; what they hold is not checked yet.

  Raises:
    ValueError: the file is something else, or asks for what it must not have.
  """
  try:
    shape, dtype = _read_header(file)
    if dtype != np.dtype(object) or shape != ():
      raise ValueError(f"it holds {shape} of {dtype}, not one pickled object")
    array = _Unpickler(file, encoding="latin1").load()
    if not isinstance(array, Array):
      raise ValueError("it holds no array")
    (content,) = array.objects()
    return content
  # A broken pickle can end in nearly any exception of the interpreter.
  except Exception as error:
    words = " ".join(str(error).split())[:200]
    raise ValueError(f"{type(error).__name__}: {words}") from None


def _read_header(file):
  version = np.lib.format.read_magic(file)
  read = np.lib.format.read_array_header_2_0
  if version == (1, 0):
    read = np.lib.format.read_array_header_1_0
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of Python 2, or of a damaged text
    shape, _, dtype = read(file)
  return shape, dtype

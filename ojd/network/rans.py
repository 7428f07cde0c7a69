"""Symbols <-> 16-bit words: range asymmetric numeral systems, many lanes wide.

Each lane is a number x in [2^16, 2^32) that symbols are pushed on as on a
stack. A symbol of frequency f and start c among the 2^12 slots of its table
makes of it 2^12 floor(x / f) + x mod f + c; where that would be too large, the
low 16 bits go out first. All lanes take a step together, each with a symbol and
a table of its own, and share one stream of words. The coder pushes from the
last step to the first, so that who decodes pops them in their order and may
choose tables by what was popped before.

L lanes, K symbols in coded order: step t has those from t L to (t + 1) L, and
the last step may have fewer.
"""

from collections.abc import Callable

import numpy as np

from ojd.network.limits import WireError

MAX_SYMBOLS = 128
UNUSED = 255  # what a slot of a table without symbols gives
_BITS = 12
SLOTS = 1 << _BITS
_LOW = 1 << 16


def quantise(counts: np.ndarray) -> np.ndarray:
  """Frequencies that add up to SLOTS where there are counts, as such to 0.

  Args:
    counts: [tables, MAX_SYMBOLS] int64, how often symbols are met.

  Returns:
    [tables, MAX_SYMBOLS] int64; every symbol that is met has 1 at least.
  """
  totals = counts.sum(1, keepdims=True)
  freqs = counts * SLOTS // np.maximum(totals, 1)
  freqs = np.where(counts > 0, np.maximum(freqs, 1), 0)
  # The commonest pays, and keeps something: of 128 symbols it pays for b rare
  # ones, less than b in all, and has 4096 / (128 - b) or more, which is >= b.
  rows = np.flatnonzero(totals)
  freqs[rows, freqs[rows].argmax(1)] += SLOTS - freqs[rows].sum(1)
  return freqs


def encode(
  symbols: np.ndarray, tables: np.ndarray, freqs: np.ndarray, num_lanes: int
) -> tuple[np.ndarray, np.ndarray]:
  """Codes symbols.

  Args:
    symbols: [K] in coded order.
    tables: [K], the row of `freqs` for each symbol.
    freqs: [tables, MAX_SYMBOLS] int64 by `quantise`.
    num_lanes: L.

  Returns:
    The lanes in the end, [L] uint32, and the words, [W] uint16.
  """
  starts = np.cumsum(freqs, 1) - freqs
  where = tables * MAX_SYMBOLS + symbols
  freq = freqs.ravel()[where].astype(np.uint64)
  start = starts.ravel()[where].astype(np.uint64)
  x = np.full(num_lanes, _LOW, np.uint64)
  words = []
  bits, sixteen = np.uint64(_BITS), np.uint64(16)
  most = freq << np.uint64(32 - _BITS)
  for begin in reversed(range(0, len(symbols), num_lanes)):
    step = slice(begin, begin + num_lanes)
    f = freq[step]
    top = x[: len(f)]
    is_full = top >= most[step]
    words.append(top[is_full].astype(np.uint16))
    top = np.where(is_full, top >> sixteen, top)
    quotient = top // f
    x[: len(f)] = (quotient << bits) + (top - quotient * f) + start[step]
  words = np.concatenate(words[::-1]) if words else np.zeros(0, np.uint16)
  return x.astype(np.uint32), words


def decode(
  lanes: np.ndarray,
  words: np.ndarray,
  freqs: np.ndarray,
  num_symbols: int,
  choose: Callable[[np.ndarray | None], np.ndarray],
) -> tuple[np.ndarray, int]:
  """Undoes `encode`.

  Args:
    lanes: [L] uint32, as `encode` left them.
    words: [W] uint16 or more.
    freqs: as for `encode`.
    num_symbols: K.
    choose: is given the symbols of the last step, None at first, and returns
      the tables of the next, [L] int64.

  Returns:
    The symbols [K] uint8, and how many words they took.

  Raises:
    WireError: these are not symbols that were coded so.
  """
  if (lanes < _LOW).any():
    raise WireError("a lane of the mask is below its range")
  symbol_of, freq_of, rest_of = _slots(freqs)
  x, got = lanes.astype(np.uint64), None
  symbols, position = np.empty(num_symbols, np.uint8), 0
  mask, bits = np.uint64(SLOTS - 1), np.uint64(_BITS)
  sixteen, low = np.uint64(16), np.uint64(_LOW)
  for begin in range(0, num_symbols, len(lanes)):
    num = min(len(lanes), num_symbols - begin)
    tables, top = choose(got), x[:num]
    slot = tables[:num] * SLOTS + (top & mask).astype(np.int64)
    got = symbol_of[slot]
    symbols[begin : begin + num] = got
    top = freq_of[slot] * (top >> bits) + rest_of[slot]
    empty = np.flatnonzero(top < low)
    end = position + len(empty)
    if end > len(words):
      raise WireError("the mask is cut off")
    top[empty] = (top[empty] << sixteen) | words[position:end]
    x[:num], position = top, end
  if (x != _LOW).any() or (symbols == UNUSED).any():
    raise WireError("the mask is damaged")
  return symbols, position


def _slots(freqs):
  """Of every slot of all tables: symbol, its frequency, slot - start."""
  num_tables = len(freqs)
  symbol = np.full((num_tables, SLOTS), UNUSED, np.uint8)
  start = np.zeros((num_tables, SLOTS), np.int64)
  for i in np.flatnonzero(freqs.sum(1)):
    symbol[i] = np.repeat(np.arange(MAX_SYMBOLS), freqs[i])
    start[i] = np.repeat(np.cumsum(freqs[i]) - freqs[i], freqs[i])
  padded = np.zeros((num_tables, UNUSED + 1), np.int64)
  padded[:, :MAX_SYMBOLS] = freqs
  freq = np.take_along_axis(padded, symbol.astype(np.int64), 1)
  rest = np.arange(SLOTS) - start
  return symbol.ravel(), *(a.ravel().astype(np.uint64) for a in (freq, rest))

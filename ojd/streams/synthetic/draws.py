"""Random draws that depend on nothing but their key, and shared smooth curves.

Every choice in the world comes from a generator whose seed is a tuple of
whole numbers (place, actor, ...), so any frame can be made without the others.
"""

import math

import numpy as np

Colour = tuple[int, int, int]

# Spawn numbers may be negative while seeds may not.
_SHIFT = 1 << 24


def generator(*key: int) -> np.random.Generator:
  """Returns the generator that belongs to the key, in any process."""
  words = [int(word) + _SHIFT for word in key]
  return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def pick(rng: np.random.Generator, choices):
  """Returns one of the choices, each as likely as the others."""
  return choices[int(rng.integers(len(choices)))]


def between(rng: np.random.Generator, low: float, high: float) -> float:
  """Returns a number between low and high as a Python float."""
  return low + (high - low) * float(rng.random())


def vary(rng: np.random.Generator, colour: Colour, spread: int) -> Colour:
  """Returns the colour with each channel moved by up to spread."""
  moves = rng.integers(-spread, spread + 1, 3)
  return tuple(
    min(235, max(8, int(c + m))) for c, m in zip(colour, moves, strict=True)
  )


def tone(colour: Colour, gain: float) -> Colour:
  """Returns the colour made lighter or darker, below the lamps' codes."""
  return (
    min(240, int(colour[0] * gain)),
    min(240, int(colour[1] * gain)),
    min(240, int(colour[2] * gain)),
  )


def mix(first: Colour, second: Colour, share: float) -> Colour:
  """Returns the colour a share of the way from the first to the second."""
  return tuple(
    int(a + (b - a) * share) for a, b in zip(first, second, strict=True)
  )


def smoothstep(x: float) -> float:
  """Rises from 0 at x = 0 to 1 at x = 1 with level ends."""
  x = min(1.0, max(0.0, x))
  return x * x * (3.0 - 2.0 * x)


def sway(waves: tuple[tuple[float, float, float], ...], time: float) -> float:
  """Returns a sum of sines: waves hold amplitude, turns a second, phase."""
  return sum(
    amplitude * math.sin(2.0 * math.pi * rate * time + phase)
    for amplitude, rate, phase in waves
  )


def waves(
  rng: np.random.Generator, amplitude: float, rates: tuple[float, ...]
) -> tuple[tuple[float, float, float], ...]:
  """Draws sines near the rates whose sum stays within the amplitude."""
  shares = rng.uniform(0.5, 1.0, len(rates))
  shares *= amplitude / shares.sum()
  return tuple(
    (float(share), rate * between(rng, 0.85, 1.15), between(rng, 0.0, 6.28))
    for share, rate in zip(shares, rates, strict=True)
  )

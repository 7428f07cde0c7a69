"""Between RGB and the colours of a video, in whole numbers: alike everywhere.

BT.601, limited range. A colour stands for four pixels, and in the middle of
them; on the way back it is interpolated. H and W are even here.
"""

import numpy as np

# 16 + M rgb is Y, 128 + M rgb are U and V, all times 2**16.
_FROM_RGB = np.array(
  [
    [16829, 33039, 6416],
    [-9714, -19071, 28784],
    [28784, -24103, -4681],
  ],
  np.int32,
)
_FROM_Y = 76309
_FROM_U = (0, -25675, 132201)  # to R, G and B
_FROM_V = (104597, -53279, 0)


def from_rgb(frame: np.ndarray) -> np.ndarray:
  """The planes Y, U and V, one behind the other.

  Args:
    frame: [H, W, 3] uint8.

  Returns:
    [3 H / 2, W] uint8.
  """
  height, width = frame.shape[:2]
  rgb = frame.astype(np.int32)
  four = rgb[::2, ::2] + rgb[::2, 1::2] + rgb[1::2, ::2] + rgb[1::2, 1::2]
  luma, *chroma = _FROM_RGB
  planes = (
    _rounded((16 << 16) + _dot(rgb, luma), 16),
    *(_rounded((128 << 18) + _dot(four, row), 18) for row in chroma),
  )
  planes = [plane.astype(np.uint8).ravel() for plane in planes]
  return np.concatenate(planes).reshape(height * 3 // 2, width)


def to_rgb(planes: np.ndarray) -> np.ndarray:
  """What `from_rgb` gave, as [H, W, 3] uint8 again."""
  height, width = planes.shape[0] * 2 // 3, planes.shape[1]
  u, v = planes[height:].reshape(2, height // 2, width // 2).astype(np.int32)
  luma = _FROM_Y * (planes[:height].astype(np.int32) - 16)
  frame = np.empty((height, width, 3), np.uint8)
  for channel in range(3):
    chroma = _FROM_U[channel] * (u - 128) + _FROM_V[channel] * (v - 128)
    value = _rounded(luma + _doubled(_doubled(chroma).T).T, 16)
    frame[..., channel] = np.clip(value, 0, 255)
  return frame


def _dot(pixels, row):
  # By hand: a product of matrices has no quick way for whole numbers.
  return sum(pixels[..., channel] * row[channel] for channel in range(3))


def _rounded(value, bits):
  """The nearest whole number of `bits` bits less."""
  return (value + (1 << bits - 1)) >> bits


def _doubled(values):
  """[2 N, M] for [N, M]: between two, at a quarter and three quarters."""
  padded = np.concatenate([values[:1], values, values[-1:]])
  doubled = np.empty((2 * len(values), values.shape[1]), values.dtype)
  doubled[::2] = _rounded(3 * values + padded[:-2], 2)
  doubled[1::2] = _rounded(3 * values + padded[2:], 2)
  return doubled

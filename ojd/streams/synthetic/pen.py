"""The rasteriser: one drawing of colour and instance number at once.

The canvas is an RGBA image whose fourth byte is no opacity but the number of
the thing drawn last: a fill writes all four bytes, and what is drawn far to
near leaves in every pixel the colour and the number of the frontmost thing.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ojd.streams.synthetic import draws
from ojd.streams.synthetic.world import View

MAX_THINGS = 250
LAMP = 241  # channels from here on shine by themselves: no texture, no night
_TILE = 128
_TEXELS = 70.0  # texels a metre


class Thing(NamedTuple):
  """What the later passes know of one numbered thing."""

  class_id: int
  column: float  # where its texture is anchored, in pixels
  row: float
  texels: float  # texels a pixel
  haze: float  # 0 near, towards 1 far
  gain: float  # of a lamp nearby
  rough: float  # how strong its texture is


class Pen:
  """Draws things, far to near, over a backdrop."""

  def __init__(self, backdrop: Image.Image, view: View, sun: tuple):
    """backdrop: RGB image of the frame's size; sun: ground direction."""
    self.image = backdrop.convert("RGBA")
    self.image.putalpha(0)
    self.view = view
    self.sun = sun
    self.lit = False  # whether lamps are on
    self.things = [Thing(0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)]
    self._draw = ImageDraw.Draw(self.image)
    self._number = (0,)

  def begin(
    self, class_id: int, x: float, z: float, *, haze: float, gain: float,
    rough: float,
  ) -> int:  # fmt: skip
    """Starts a new thing at a ground point and returns its number."""
    k, ax, ay, eye = self.view
    scale = k / z
    self.things.append(
      Thing(
        class_id, ax + scale * x, ay + scale * eye, _TEXELS / scale, haze,
        gain, rough,
      )
    )  # fmt: skip
    self.resume(len(self.things) - 1)
    return len(self.things) - 1

  def resume(self, number: int) -> None:
    """Goes on drawing the thing with the number."""
    self._number = (number,)

  def place(self, x: float, z: float, heading: float):
    """Returns put(forward, up, left) -> (column, row) for a body there."""
    k, ax, ay, eye = self.view
    cos, sin = math.cos(heading), math.sin(heading)

    def put(forward: float, up: float, left: float = 0.0):
      q = k / (z + forward * sin + left * cos)
      return ax + q * (x + forward * cos - left * sin), ay + q * (eye - up)

    return put

  def polygon(self, points, colour: draws.Colour) -> None:
    """Fills a polygon of (column, row) points."""
    self._draw.polygon(points, colour + self._number)

  def ellipse(self, column, row, across, down, colour) -> None:
    """Fills an ellipse around a point."""
    self._draw.ellipse(
      (column - across, row - down, column + across, row + down),
      colour + self._number,
    )

  def line(self, points, width: float, colour) -> None:
    """Draws a line of a width in pixels, at least one."""
    self._draw.line(points, colour + self._number, max(1, round(width)))

  def ribbon(self, a, b, c, ra, rb, rc, colour) -> None:
    """Fills a bent limb from a over b to c with half widths ra, rb, rc."""
    ux, uy = _normal(a, b)
    wx, wy = _normal(b, c)
    mx, my = (ux + wx) / 2, (uy + wy) / 2
    (ax, ay), (bx, by), (cx, cy) = a, b, c
    self._draw.polygon(
      (
        ax + ux * ra, ay + uy * ra, bx + mx * rb, by + my * rb,
        cx + wx * rc, cy + wy * rc, cx - wx * rc, cy - wy * rc,
        bx - mx * rb, by - my * rb, ax - ux * ra, ay - uy * ra,
      ),
      colour + self._number,
    )  # fmt: skip


def _normal(a, b):
  dx, dy = b[0] - a[0], b[1] - a[1]
  length = math.hypot(dx, dy) + 1e-6
  return dy / length, -dx / length


@functools.lru_cache(maxsize=1)
def _tile() -> np.ndarray:
  """Returns a periodic noise tile around 256 in fixed point."""
  rng = draws.generator(1)
  total = np.zeros((_TILE, _TILE), np.float32)
  for cell, amplitude in ((1, 0.05), (2, 0.07), (4, 0.07), (16, 0.06)):
    grid = rng.standard_normal((_TILE // cell, _TILE // cell))
    grid = np.pad(grid.astype(np.float32), 2, mode="wrap")
    side = (_TILE // cell + 4) * cell
    smooth = Image.fromarray(grid).resize((side, side), Image.BICUBIC)
    total += (
      amplitude
      * np.asarray(smooth)[2 * cell : -2 * cell][:, 2 * cell : -2 * cell]
    )
  return np.clip(256 * (1.0 + total), 130, 400).astype(np.int32)


def texture(
  image: Image.Image, things: list[Thing], haze: draws.Colour
) -> np.ndarray:
  """Adds texture, haze and lamp light to the things' pixels.

  Args:
    image: RGBA, colour and number.
    things: what the numbers stand for, number 0 the backdrop.
    haze: the colour that distance takes on.

  Returns:
    [H, W, 3] uint8.
  """
  width, height = image.size
  result = np.array(image.convert("RGB")).reshape(-1, 3)
  numbers = np.asarray(image.getchannel("A")).ravel()
  where = np.flatnonzero(numbers)
  if where.size:
    number = numbers[where]
    table = np.array([thing[1:] for thing in things], np.float32)
    rows, columns = np.divmod(where.astype(np.int32), np.int32(width))
    texels = table[:, 2][number]
    across = ((columns - table[:, 0][number]) * texels).astype(np.int32)
    down = ((rows - table[:, 1][number]) * texels).astype(np.int32)
    # Far things show less texture than the tile has: it would only flicker.
    depth = np.clip(1.5 / np.maximum(table[:, 2], 1e-6), 0.0, 1.0)
    depth *= table[:, 5]
    clear = (1.0 - table[:, 3]) * table[:, 4]
    grain = (_tile()[down % _TILE, across % _TILE] - 256).astype(np.float32)
    gain = (1.0 + grain * (depth[number] / 256.0)) * clear[number]
    colour = result[where].astype(np.float32)
    shade = colour * gain[:, None]
    shade += table[:, 3][number][:, None] * np.array(haze, np.float32)
    shade = np.where(colour >= LAMP, colour, np.minimum(shade, LAMP - 1.0))
    result[where] = shade.astype(np.uint8)
  return result.reshape(height, width, 3)

"""Shadows on the ground, as a picture that the backdrop is multiplied by.

They are drawn at half the size and enlarged: it is cheap, and their edges
become soft.
"""

import math

from PIL import Image, ImageDraw

from ojd.streams.synthetic import world
from ojd.streams.synthetic.camera import View

_FOOT = {  # kind -> height in metres, half breadth
  "rider": (1.6, 0.2), "dog": (0.6, 0.16),
}  # fmt: skip


def cast_shadows(
  size: tuple[int, int], view: View, place: world.Place, actors, strength: float
) -> Image.Image:
  """Returns an L image of the size, 255 in the light.

  Args:
    size: width and height in pixels.
    view: the projection of the frame.
    place: its props stand still, and its sun gives the direction.
    actors: what moves.
    strength: 0 for none to 1 for black.
  """
  small = (max(1, (size[0] + 1) // 2), max(1, (size[1] + 1) // 2))
  image = Image.new("L", small, 255)
  draw = ImageDraw.Draw(image)
  dark = int(255 * (1.0 - strength))

  def put(x: float, z: float):
    q = 0.5 * view.k / max(z, 0.5)
    return 0.5 * view.ax + q * x, 0.5 * view.ay + q * view.eye

  for prop in place.props:
    if prop.kind in ("tree", "bush"):
      _draw_blob(draw, put, place.sun, prop, dark)
    else:
      _draw_stroke(draw, put, place.sun, prop.x, prop.z, prop.size, 0.07, dark)
  for actor in actors:
    if actor.kind in ("car", "bus", "truck"):
      _draw_hull(draw, put, place.sun, actor, dark)
    else:
      height, half = _FOOT.get(actor.kind, (1.7, 0.24))
      _draw_stroke(draw, put, place.sun, actor.x, actor.z, height, half, dark)
  return image.resize(size, Image.BILINEAR)


def _draw_stroke(draw, put, sun, x, z, height, half, dark) -> None:
  """Draws the shadow of something upright."""
  end_x, end_z = x + sun[0] * height, z + sun[1] * height
  length = math.hypot(sun[0], sun[1]) + 1e-6
  ax, az = -sun[1] / length * half, sun[0] / length * half
  draw.polygon(
    (
      *put(x - ax, z - az), *put(x + ax, z + az),
      *put(end_x + 0.7 * ax, end_z + 0.7 * az),
      *put(end_x - 0.7 * ax, end_z - 0.7 * az),
    ),
    dark,
  )  # fmt: skip
  left, middle = put(x - 1.3 * half, z)
  right, _ = put(x + 1.3 * half, z)
  down = 0.5 * (put(x, z - 0.8 * half)[1] - put(x, z + 0.8 * half)[1])
  draw.ellipse((left, middle - down, right, middle + down), dark)


def _draw_blob(draw, put, sun, prop, dark) -> None:
  """Draws the shadow of leaves and of the stem that carries them."""
  up = 0.75 if prop.kind == "tree" else 0.4
  half = prop.size * (0.24 if prop.kind == "tree" else 0.9)
  x, z = prop.x + sun[0] * up * prop.size, prop.z + sun[1] * up * prop.size
  if prop.kind == "tree":
    _draw_stroke(draw, put, sun, prop.x, prop.z, up * prop.size, 0.12, dark)
  left, middle = put(x - half, z)
  right, _ = put(x + half, z)
  down = 0.5 * (put(x, z - half)[1] - put(x, z + half)[1])
  draw.ellipse((left, middle - down, right, middle + down), dark)


def _draw_hull(draw, put, sun, actor, dark) -> None:
  """Draws the shadow of a box: its foot moved along the sun's direction."""
  look = actor.looks[0]
  cos, sin = math.cos(actor.heading), math.sin(actor.heading)
  rise = 0.85 * look.height
  foot, roof = [], []
  for along, aside in ((1, 1), (1, -1), (-1, -1), (-1, 1)):
    forward, left = along * look.length / 2, aside * look.width / 2
    x = actor.x + forward * cos - left * sin
    z = actor.z + forward * sin + left * cos
    foot.append(put(x, z))
    roof.append(put(x + sun[0] * rise, z + sun[1] * rise))
  draw.polygon(foot, dark)
  draw.polygon(roof, dark)
  for i in range(4):
    j = (i + 1) % 4
    draw.polygon((foot[i], foot[j], roof[j], roof[i]), dark)

"""One frame: everything in its place, far to near, and shadows on the ground.

Shadows are a picture that the backdrop is multiplied by. They are drawn at half
the size and enlarged: it is cheap, and their edges become soft.
"""

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from ojd.streams.synthetic import (
  backdrop,
  bodies,
  cycles,
  greens,
  places,
  props,
  raster,
  vehicles,
  world,
)
from ojd.streams.synthetic.raster import MAX_THINGS, Pen, texture
from ojd.streams.synthetic.world import View

_NEAREST = 3.0  # metres
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


def draw_things(
  key: world.PlaceKey, time: float, dark: float, size, class_names
) -> Pen:
  """Draws the world at a time over its backdrop.

  Args:
    key: of the place.
    time: in seconds.
    dark: 0 by day to 1 by night.
    size: width and height in pixels.
    class_names: of the stream; a thing's class is its index there.

  Returns:
    The pen, which holds the picture and the list of things.
  """
  place = places.build(key)
  width, height = size
  window = world.window_at(place.motion, time, width / height)
  view = world.view_at(place.lens, window, height)
  actors = _visible(places.cast(key, time), view, width)
  back = _backdrop(key, window, size, dark)
  strength = place.shade * (1.0 - 0.85 * dark)
  shade = cast_shadows(size, view, place, actors, strength)
  back = ImageChops.multiply(back, Image.merge("RGB", (shade,) * 3))
  pen = Pen(back, view, place.sun)
  pen.lit = dark > 0.45
  classes = {name: i for i, name in enumerate(class_names)}
  classes |= {"player": classes["person"]}
  for _, draw in _far_to_near(pen, place, actors, time, dark, classes):
    draw()
  return pen


def expose(
  pen: Pen, key: world.PlaceKey, t: int, time: float, dark: float
) -> np.ndarray:
  """Returns the frame that a camera takes of the picture, [H, W, 3] uint8."""
  place = places.build(key)
  pixels = texture(pen.image, pen.things, place.haze)
  image = Image.fromarray(pixels)
  image = raster.light(image, key, time, dark)
  if dark > 0.3:
    image = raster.bloom(image, dark)
  image = raster.fall(image, place, time, dark)
  image = image.filter(
    ImageFilter.BoxBlur(0.3 * math.sqrt(image.height / 192.0))
  )
  return np.array(raster.sense(image, key, t, dark))


def _backdrop(key, window, size, dark: float) -> Image.Image:
  height, width = size[1], size[0]
  layers = []
  if _lights(dark) < 1.0:
    layers.append(backdrop.paint(key, height, width, night=False))
  if dark > 0.0:
    layers.append(backdrop.paint(key, height, width, night=True))
  images = [backdrop.look(layer, window, size) for layer in layers]
  if len(images) == 1:
    return images[0]
  return Image.blend(images[0], images[1], _lights(dark))


def _lights(dark: float) -> float:
  """Returns how far the lamps are on: before it is quite dark."""
  return min(1.0, dark / 0.7)


def _visible(actors, view: world.View, width: int):
  """Drops what is beside or behind the view."""
  seen = []
  for actor in actors:
    if actor.z < _NEAREST:
      continue
    column = view.ax + view.k * actor.x / actor.z
    reach = view.k / actor.z * _REACH.get(actor.kind, 1.2)
    if -reach < column < width + reach:
      seen.append(actor)
  return seen


_ROUGH = {"person": 0.75, "player": 0.75, "dog": 1.1}
_REACH = {"car": 3.2, "bus": 6.5, "truck": 5.0, "rider": 1.6}


def _far_to_near(pen, place, actors, time, dark, classes):
  """Returns (-z, draw) of everything, the farthest first."""
  width = pen.image.width
  jobs = [(-a.z, _actor_job(pen, place, a, time, dark, classes))
          for a in actors]  # fmt: skip
  for prop in place.props:
    column = pen.view.ax + pen.view.k * prop.x / prop.z
    reach = pen.view.k / prop.z * props.half_width(prop) + 4
    if -reach < column < width + reach:
      jobs.append((-prop.z, _prop_job(pen, place, prop, time, dark)))
  if place.players:
    x, up, z = greens.ball(place, time)
    jobs.append((-z, lambda: _draw_ball(pen, x, up, z)))
  # Riders take two numbers; the farthest go first when there are too many.
  jobs.sort(key=lambda job: job[0])
  return jobs[-MAX_THINGS // 2 :]


def _dim(place, x: float, z: float, dark: float) -> tuple[float, float]:
  """Returns the haze at a depth and the gain by the lamps around."""
  gain = 1.0
  if dark > 0.0:
    glow = sum(
      math.exp(-((x - lx) ** 2 + (z - lz) ** 2) / 7.0) for lx, lz in place.lamps
    )
    gain += 0.9 * dark * min(1.0, glow)
  return 1.0 - math.exp(-z / place.clarity), gain


def _actor_job(pen, place, actor: world.Placed, time, dark, classes):
  def draw():
    haze, gain = _dim(place, actor.x, actor.z, dark)
    name = "bicycle" if actor.kind == "rider" else actor.kind
    number = pen.begin(
      classes[name], actor.x, actor.z, haze=haze, gain=gain,
      rough=_ROUGH.get(actor.kind, 0.4),
    )  # fmt: skip
    spot = (actor.x, actor.z, actor.heading)
    if actor.kind == "rider":
      other = pen.begin(
        classes["person"], actor.x, actor.z, haze=haze, gain=gain,
        rough=_ROUGH["person"],
      )  # fmt: skip
      cycles.draw_rider(pen, (number, other), *actor.looks, *spot,
                        actor.distance)  # fmt: skip
    elif actor.kind == "dog":
      look = actor.looks[0]
      phase = 2.0 * math.pi * actor.distance / (1.6 * look.size)
      cycles.draw_dog(pen, look, *spot, phase, 0.55 * actor.pace, time)
    elif actor.kind in ("person", "player"):
      look = actor.looks[0]
      bodies.draw_walker(pen, look, _gait(actor, look), *spot)
    else:
      vehicles.draw_vehicle(pen, actor.looks[0], *spot, actor.distance)

  return draw


def _gait(actor: world.Placed, look: bodies.Look) -> bodies.Pose:
  """Returns the pose of somebody on foot."""
  if actor.kind == "player":
    run = min(1.0, actor.pace)
    swing = 0.1 + 0.55 * run
    return bodies.walk_pose(
      look.height, 2.0 * math.pi * actor.distance / 1.4, swing, run
    )
  run = 1.0 if actor.speed > 2.0 else 0.0
  swing = 0.66 if run else 0.2 + 0.15 * actor.speed
  # A cycle covers two steps of legs that open by the swing.
  stride = 1.98 * look.height * math.sin(swing) * (1.25 if run else 1.0)
  phase = 2.0 * math.pi * actor.distance / stride
  return bodies.walk_pose(look.height, phase, swing * actor.pace**0.6, run)


def _prop_job(pen, place, prop: props.Prop, time, dark):
  def draw():
    haze, gain = _dim(place, prop.x, prop.z, dark)
    rough = 1.2 if prop.blobs else 0.5
    pen.begin(0, prop.x, prop.z, haze=haze, gain=gain, rough=rough)
    props.draw_prop(pen, prop, time)

  return draw


def _draw_ball(pen: Pen, x: float, up: float, z: float) -> None:
  pen.begin(0, x, z, haze=0.0, gain=1.0, rough=0.2)
  radius = max(1.0, 0.14 * pen.view.k / z)
  at = pen.place(x, z, 0.0)(0.0, up)
  pen.ellipse(*at, radius, radius, (234, 234, 230))

"""A pinhole camera above a ground plane, and the window it moves over.

World: metres, x to the right, y up, z away from the eye, ground at y = 0.
Plane: the picture plane of a camera that looks along z, measured in heights of
the view: u = focal x / z, v = horizon + focal (eye - y) / z, v = 0 at the top.
Pan, zoom and shake slide a window over that plane, so that a backdrop painted
on the plane and the actors projected onto it move as one.
"""

from typing import NamedTuple

from ojd.streams.synthetic import draws

# A wider picture sees a lower strip of the same world: no actor may start in
# view, however wide the picture is.
MAX_ASPECT = 1.8
PAN = 0.17  # how far the window leaves the middle, in plane units
TILT = 0.012
MARGIN = 0.04
EDGE_U = MAX_ASPECT / 2 + PAN + MARGIN  # nothing beyond is ever seen
EDGE_V = TILT + MARGIN


class Lens(NamedTuple):
  """The fixed part of a place's camera."""

  eye: float  # metres above the ground
  focal: float  # heights of the view
  horizon: float  # v of the horizon


class Motion(NamedTuple):
  """How the camera of a place moves, as sums of sines."""

  pan: tuple[tuple[float, float, float], ...]
  zoom: tuple[tuple[float, float, float], ...]
  shake_u: tuple[tuple[float, float, float], ...]
  shake_v: tuple[tuple[float, float, float], ...]


class Window(NamedTuple):
  """The part of the plane that is in the picture."""

  left: float
  top: float
  width: float
  height: float


class View(NamedTuple):
  """From world to pixels: column ax + k x / z, row ay + k (eye - y) / z."""

  k: float
  ax: float
  ay: float
  eye: float


def draw_motion(rng, shake: float = 0.003) -> Motion:
  """Draws the movements of a camera held by hand or on a tripod."""
  return Motion(
    pan=draws.waves(rng, PAN - 0.01, (0.031, 0.083)),
    zoom=draws.waves(rng, 1.0, (0.023, 0.061)),
    shake_u=draws.waves(rng, shake, (0.7, 1.3, 2.9)),
    shake_v=draws.waves(rng, shake, (0.9, 1.7, 3.1)),
  )


def view_size(aspect: float) -> tuple[float, float]:
  """Returns width and height in plane units of the unzoomed view."""
  width = min(aspect, MAX_ASPECT)
  return width, width / aspect


def window_at(motion: Motion, time: float, aspect: float) -> Window:
  """Returns the window at a time in seconds."""
  width, height = view_size(aspect)
  zoom = 1.13 + 0.13 * draws.sway(motion.zoom, time)
  width, height = width / zoom, height / zoom
  middle_u = draws.sway(motion.pan, time) + draws.sway(motion.shake_u, time)
  # Zooming in keeps to the ground, where the actors are.
  middle_v = 0.5 + 0.5 * (1.0 - 1.0 / zoom) * 0.5
  middle_v += draws.sway(motion.shake_v, time)
  return Window(middle_u - width / 2, middle_v - height / 2, width, height)


def view_at(lens: Lens, window: Window, height: int) -> View:
  """Returns the projection for a picture of the given height in pixels."""
  scale = height / window.height
  return View(
    k=lens.focal * scale,
    ax=-window.left * scale,
    ay=(lens.horizon - window.top) * scale,
    eye=lens.eye,
  )


def edge_x(lens: Lens, z: float, half_length: float) -> float:
  """Returns the x beyond which a thing at depth z is out of every view."""
  return EDGE_U * z / lens.focal + half_length

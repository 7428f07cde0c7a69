"""The ground of the backdrop: colours by ground coordinates.

H, W are the backdrop's size; x and z are the ground coordinates of its
pixels, [H, W] and [H, 1] float32.
"""

import numpy as np

from ojd.streams.synthetic import draws, greens, streets


def paint(place, x: np.ndarray, z: np.ndarray, rng) -> np.ndarray:
  """Returns the ground's colours, [H, W, 3] float32."""
  painter = {
    streets.StreetPlan: _street,
    greens.ParkPlan: _park,
    greens.PitchPlan: _pitch,
  }[type(place.plan)]
  colours = painter(place.plan, x, z, rng)
  if place.weather == "rain":
    colours *= 0.8
  elif place.weather == "snow":
    cover = np.clip(2.2 * (field(rng, x, z, 0.35) + 0.1), 0.0, 0.8)
    colours += cover[..., None] * (np.float32(226.0) - colours)
  return colours


def field(rng, x: np.ndarray, z: np.ndarray, rate: float) -> np.ndarray:
  """Returns smooth noise of about -1..1 at rate cells a metre."""
  side = 64
  grid = rng.standard_normal((side, side)).astype(np.float32) * 0.5
  return _sample(grid, x * rate, np.broadcast_to(z * rate, x.shape))


def _sample(grid: np.ndarray, across, down) -> np.ndarray:
  """Samples a periodic grid with linear interpolation."""
  side = len(grid)
  i, j = np.floor(down), np.floor(across)
  a, b = (down - i).astype(np.float32), (across - j).astype(np.float32)
  i, j = i.astype(np.int32) % side, j.astype(np.int32) % side
  i1, j1 = (i + 1) % side, (j + 1) % side
  upper = grid[i, j] * (1 - b) + grid[i, j1] * b
  lower = grid[i1, j] * (1 - b) + grid[i1, j1] * b
  return upper * (1 - a) + lower * a


def _lay(colours: np.ndarray, where: np.ndarray, colour, opacity=1.0) -> None:
  """Lays a colour over part of the ground."""
  where = np.broadcast_to(where, colours.shape[:2])
  old = colours[where]
  colours[where] = old + (np.asarray(colour, np.float32) - old) * opacity


def _street(plan, x, z, rng) -> np.ndarray:
  colours = np.empty((*x.shape, 3), np.float32)
  colours[:] = draws.vary(rng, (96, 96, 100), 8)
  in_side = np.abs(x - plan.side_x) < plan.side_half
  walk = (z < plan.near_kerb) | ((z > plan.far_kerb) & ~in_side)
  paving = draws.pick(rng, ((158, 150, 140), (146, 146, 148), (150, 128, 112)))
  _lay(colours, walk, paving)
  fade = np.clip(9.0 / z, 0.0, 1.0)
  joints = ((x % 0.9) < 0.045) | ((z % 0.8) < 0.05)
  old = colours[np.broadcast_to(walk & joints & (z < 20), x.shape)]
  mask = walk & joints & (z < 20)
  weight = np.broadcast_to(0.24 * fade, x.shape)[mask][:, None]
  colours[mask] = old * (1.0 - weight)
  patches = field(rng, x, z, 0.3) > 0.55
  _lay(colours, patches & ~walk, (72, 72, 76), 0.6)
  _lay(colours, np.abs(z - plan.near_kerb) < 0.12, (186, 184, 178))
  _lay(colours, (np.abs(z - plan.far_kerb) < 0.12) & ~in_side, (186, 184, 178))
  kerb = np.abs(np.abs(x - plan.side_x) - plan.side_half) < 0.12
  _lay(colours, kerb & (z > plan.far_kerb), (180, 178, 172))
  paint = (214, 212, 202)
  dashes = (np.abs(z - plan.middle) < 0.08) & (((x + 50) % 3.0) < 1.7)
  _lay(colours, dashes, paint, 0.85)
  middle = (np.abs(x - plan.side_x) < 0.08) & (z > plan.houses)
  _lay(colours, middle & ((z % 4.0) < 2.2), paint, 0.8)
  zebra = in_side & (np.abs(z - plan.houses + 2.0) < 1.0)
  _lay(colours, zebra & (((x - plan.side_x) % 1.1) < 0.55), paint, 0.85)
  _lay(colours, np.abs(z - plan.near_kerb - 1.15) < 0.05, paint, 0.7)
  for _ in range(4):
    at = draws.between(rng, -8, 8), draws.between(rng, 8.8, 14.5)
    cover = (x - at[0]) ** 2 + (z - at[1]) ** 2 < 0.12
    _lay(colours, cover, (62, 60, 60))
  return colours


def _grass(x, z, rng, colour) -> np.ndarray:
  colours = np.empty((*x.shape, 3), np.float32)
  colours[:] = draws.vary(rng, colour, 10)
  dry = np.clip(0.5 + field(rng, x, z, 0.22), 0.0, 1.0)[..., None]
  colours += dry * np.array((26.0, 10.0, -8.0), np.float32)
  blades = field(rng, x, z, 6.0) * np.clip(5.0 / z, 0.0, 1.0)
  return colours * (1.0 + 0.16 * blades[..., None])


def _park(plan, x, z, rng) -> np.ndarray:
  colours = _grass(x, z, rng, (84, 116, 58))
  bed = (field(rng, x, z, 0.5) > 0.95) & (np.abs(z - 9.6) < 1.0)
  petals = field(rng, x, z, 9.0) > 0.1
  _lay(colours, bed, (58, 84, 44))
  _lay(colours, bed & petals, draws.pick(rng, ((186, 50, 60), (210, 180, 60))))
  gravel = (184, 168, 140)
  edge = 0.12 * field(rng, x, z, 1.2)
  bend = 0.25 * np.sin(0.35 * x)
  for middle, half in ((plan.near_path, plan.half + 0.25),
                       (plan.far_path, plan.half)):  # fmt: skip
    _lay(colours, np.abs(z - middle - bend) < half + edge, gravel)
  share = (z - plan.far_path) / (48.0 - plan.far_path)
  deep = plan.deep_x * (1.0 + 0.7 * share) + 2.2 * share
  way = (np.abs(x - deep) < 1.1 + edge) & (z > plan.far_path) & (z < 60)
  _lay(colours, way, gravel)
  shore = ((x - plan.pond_x) / 8.0) ** 2 + ((z - plan.pond_z) / 4.5) ** 2
  shore += 0.12 * field(rng, x, z, 0.4)
  _lay(colours, shore < 1.12, (128, 116, 84))
  _lay(colours, shore < 1.0, (112, 138, 156))
  ripples = np.broadcast_to(np.sin(9.0 * z + 2.0 * np.sin(x)) > 0.6, x.shape)
  _lay(colours, (shore < 1.0) & ripples, (160, 180, 190), 0.6)
  return colours


def _pitch(plan, x, z, rng) -> np.ndarray:
  colours = _grass(x, z, rng, (62, 122, 56))
  mown = np.floor((x - plan.middle) / 4.5).astype(np.int32) % 2 == 0
  colours *= np.where(mown, 1.07, 0.95)[..., None].astype(np.float32)
  outside = (z < plan.near_line - 0.9) | (z > plan.far_line + 2.0)
  _lay(colours, outside, (150, 84, 66))
  white = (220, 222, 216)
  inside = (z > plan.near_line) & (z < plan.far_line)
  thick = 0.06 + 0.0028 * z
  for line in (plan.near_line, plan.far_line):
    _lay(colours, np.abs(z - line) < thick, white)
  _lay(colours, (np.abs(x - plan.middle) < thick) & inside, white)
  centre = 0.5 * (plan.near_line + plan.far_line)
  ring = np.hypot(x - plan.middle, z - centre)
  _lay(colours, np.abs(ring - 7.0) < 2.0 * thick, white)
  side = np.sign(plan.goal_x)
  _lay(colours, (np.abs(x - plan.goal_x) < thick) & inside, white)
  for deep, wide in ((5.5, 6.0), (13.0, 11.0)):
    front = plan.goal_x - side * deep
    _lay(colours, (np.abs(x - front) < thick) & (np.abs(z - centre) < wide),
         white)  # fmt: skip
    span = (x - front) * side > 0
    span &= (x - plan.goal_x) * side < 0
    _lay(colours, span & (np.abs(np.abs(z - centre) - wide) < thick), white)
  return colours

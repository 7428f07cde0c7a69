"""People: a look drawn once, a pose for every moment, and their drawing.

A pose is in metres in the body's own frame: forward, up. The left side has
sideways offset +, the right side -.
"""

import math
from typing import NamedTuple

from ojd.streams.synthetic import draws
from ojd.streams.synthetic.draws import Colour

_SKIN = (
  (216, 172, 142), (204, 154, 120), (188, 135, 100), (140, 95, 68),
  (96, 64, 48), (222, 184, 156),
)  # fmt: skip
_HAIR = (
  (40, 30, 26), (84, 56, 36), (150, 110, 60), (198, 170, 110), (120, 118, 116),
  (28, 26, 32), (140, 66, 36),
)  # fmt: skip
CLOTH = (
  (176, 46, 44), (42, 72, 140), (36, 40, 48), (212, 208, 200), (60, 110, 76),
  (206, 168, 60), (120, 70, 120), (70, 130, 160), (150, 120, 92),
  (216, 120, 60), (92, 96, 104), (196, 150, 170), (24, 92, 96),
)  # fmt: skip
_TROUSERS = (
  (44, 54, 84), (36, 38, 44), (96, 88, 76), (128, 116, 96), (70, 84, 110),
  (60, 62, 58), (30, 30, 40),
)  # fmt: skip


class Look(NamedTuple):
  """The appearance of one person."""

  height: float  # metres
  build: float  # 1 is average breadth
  skin: Colour
  hair: Colour
  long_hair: bool
  hat: Colour | None
  top: Colour
  second: Colour  # of the pattern
  pattern: str  # plain, stripes, band, vest, split
  sleeves: bool
  bottom: Colour
  legs: str  # trousers, shorts, skirt
  shoes: Colour
  bag: str  # none, back, hand
  bag_colour: Colour


class Pose(NamedTuple):
  """Where the joints are: (forward, up) of the left and the right side."""

  hip: tuple[float, float]
  shoulder: tuple[float, float]
  head: tuple[float, float]
  knees: tuple
  ankles: tuple
  elbows: tuple
  wrists: tuple


def draw_look(rng) -> Look:
  """Draws a passer-by."""
  child = rng.random() < 0.1
  height = draws.between(rng, 1.56, 1.92) * (0.72 if child else 1.0)
  return Look(
    height=height,
    build=draws.between(rng, 0.88, 1.25),
    skin=draws.vary(rng, draws.pick(rng, _SKIN), 8),
    hair=draws.vary(rng, draws.pick(rng, _HAIR), 8),
    long_hair=bool(rng.random() < 0.4),
    hat=draws.pick(rng, CLOTH) if rng.random() < 0.2 else None,
    top=draws.vary(rng, draws.pick(rng, CLOTH), 14),
    second=draws.vary(rng, draws.pick(rng, CLOTH), 14),
    pattern=draws.pick(rng, ("plain", "plain", "stripes", "band", "vest",
                             "split")),
    sleeves=bool(rng.random() < 0.65),
    bottom=draws.vary(rng, draws.pick(rng, _TROUSERS), 14),
    legs=draws.pick(rng, ("trousers", "trousers", "trousers", "shorts",
                          "skirt")),
    shoes=draws.pick(rng, ((40, 34, 32), (210, 208, 204), (150, 50, 44),
                           (70, 54, 40))),
    bag=draws.pick(rng, ("none", "none", "back", "hand")),
    bag_colour=draws.vary(rng, draws.pick(rng, CLOTH), 14),
  )  # fmt: skip


def walk_pose(height: float, phase: float, swing: float, run: float) -> Pose:
  """Returns the pose of a step.

  Args:
    height: of the person in metres.
    phase: of the cycle of two steps, in radians.
    swing: how far the legs go out, in radians; 0 stands still.
    run: 0 walks, 1 runs: bent arms, high heels, a lean.
  """
  thigh, shin = 0.25 * height, 0.245 * height
  upper, lower = 0.165 * height, 0.15 * height
  knees, ankles, elbows, wrists = [], [], [], []
  for shift in (0.0, math.pi):
    out = math.sin(phase + shift) * swing
    bend = 0.06 + swing * (1.2 + 1.1 * run) * max(
      0.0, math.cos(phase + shift + 0.35)
    )
    knee = (thigh * math.sin(out), -thigh * math.cos(out))
    knees.append(knee)
    back = out - bend
    ankles.append(
      (knee[0] + shin * math.sin(back), knee[1] - shin * math.cos(back))
    )
    arm = -0.85 * out + 0.05
    elbow = (upper * math.sin(arm), -upper * math.cos(arm))
    arm += 0.2 + 0.4 * swing + 0.9 * run
    elbows.append(elbow)
    wrists.append(
      (elbow[0] + lower * math.sin(arm), elbow[1] - lower * math.cos(arm))
    )
  # The lower foot stands on the ground; a runner leaves it twice a cycle.
  hop = 0.03 * run * height * (0.5 - 0.5 * math.cos(2.0 * phase + 0.6))
  hip = 0.035 * height - min(ankles[0][1], ankles[1][1]) + hop
  lean = (0.015 + 0.05 * run * min(1.0, swing)) * height
  shoulder = (lean, hip + 0.292 * height)
  return Pose(
    hip=(0.0, hip),
    shoulder=shoulder,
    head=(lean * 1.4, shoulder[1] + 0.115 * height),
    knees=tuple((f, hip + y) for f, y in knees),
    ankles=tuple((f, hip + y) for f, y in ankles),
    elbows=tuple((shoulder[0] + f, shoulder[1] + y) for f, y in elbows),
    wrists=tuple((shoulder[0] + f, shoulder[1] + y) for f, y in wrists),
  )


class Figure(NamedTuple):
  """A person about to be drawn: everything its parts share."""

  pen: object
  look: Look
  pose: Pose
  put: object
  scale: float  # pixels a metre
  facing: float  # 1 shows its back, -1 its face, 0 its side
  near: int  # 0 or 1: the side, left or right, that is nearer to the eye


def figure(pen, look: Look, pose: Pose, x, z, heading) -> Figure:
  """Sets a posed person on the ground."""
  return Figure(
    pen, look, pose, pen.place(x, z, heading), pen.view.k / z,
    math.sin(heading), 1 if math.cos(heading) > 0 else 0,
  )  # fmt: skip


def draw_walker(pen, look: Look, pose: Pose, x, z, heading) -> None:
  """Draws a person on foot."""
  body = figure(pen, look, pose, x, z, heading)
  far = 1 - body.near
  draw_arm(body, far, 0.85)
  draw_leg(body, far, 0.86)
  draw_leg(body, body.near, 1.0)
  draw_trunk(body)
  draw_head(body)
  draw_arm(body, body.near, 1.08)


def draw_leg(body: Figure, side: int, gain: float) -> None:
  """Draws one leg and its shoe."""
  pen, look, pose, put, scale = body[:5]
  h = look.height
  apart = (0.05, -0.05)[side] * h
  hip = put(pose.hip[0], pose.hip[1], apart)
  knee = put(*pose.knees[side], apart)
  ankle = put(*pose.ankles[side], apart)
  q = scale * h * look.build
  bare = look.legs != "trousers"
  colour = draws.tone(look.skin if bare else look.bottom, gain)
  pen.ribbon(hip, knee, ankle, 0.056 * q, 0.04 * q, 0.027 * q, colour)
  if look.legs == "shorts":
    middle = ((hip[0] + knee[0]) / 2, (hip[1] + knee[1]) / 2)
    pen.ribbon(
      hip, middle, knee, 0.062 * q, 0.058 * q, 0.05 * q,
      draws.tone(look.bottom, gain),
    )  # fmt: skip
  forward, up = pose.ankles[side]
  tilt = max(-0.05, 0.25 * (pose.ankles[side][0] - pose.knees[side][0]))
  toe = put(forward + 0.105 * h, up - 0.02 * h - tilt * 0.3, apart)
  heel = put(forward - 0.035 * h, up - 0.012 * h + tilt * 0.2, apart)
  thick = 0.024 * scale * h
  pen.polygon(
    (
      heel[0], heel[1] - thick, ankle[0], ankle[1] - thick * 1.3,
      toe[0], toe[1] - thick, toe[0] + 0.3 * thick, toe[1] + thick * 0.8,
      heel[0] - 0.3 * thick, heel[1] + thick * 0.9,
    ),
    draws.tone(look.shoes, gain),
  )  # fmt: skip


def draw_arm(body: Figure, side: int, gain: float) -> None:
  """Draws one arm and its hand."""
  pen, look, pose, put, scale = body[:5]
  h = look.height
  apart = (0.115, -0.115)[side] * h * look.build
  shoulder = put(pose.shoulder[0], pose.shoulder[1] - 0.01 * h, apart)
  elbow = put(*pose.elbows[side], apart * 1.15)
  wrist = put(*pose.wrists[side], apart * 1.05)
  q = scale * h * look.build
  sleeve = draws.tone(look.second if look.pattern == "vest" else look.top, gain)
  skin = draws.tone(look.skin, gain)
  lower = sleeve if look.sleeves else skin
  pen.ribbon(shoulder, elbow, wrist, 0.036 * q, 0.03 * q, 0.022 * q, lower)
  if not look.sleeves:
    middle = ((shoulder[0] + elbow[0]) / 2, (shoulder[1] + elbow[1]) / 2)
    pen.ribbon(shoulder, middle, elbow, 0.04 * q, 0.038 * q, 0.034 * q, sleeve)
  pen.ellipse(wrist[0], wrist[1], 0.022 * q, 0.024 * q, skin)
  if look.bag == "hand" and side == 1:
    drop = 0.1 * q
    pen.polygon(
      (
        wrist[0] - 0.03 * q, wrist[1], wrist[0] + 0.03 * q, wrist[1],
        wrist[0] + 0.06 * q, wrist[1] + drop, wrist[0] - 0.06 * q,
        wrist[1] + drop,
      ),
      draws.tone(look.bag_colour, gain),
    )  # fmt: skip


def _trunk_edges(body: Figure):
  """Returns the screen edges (left, right, row) of shoulders and hips."""
  look, pose, put = body.look, body.pose, body.put
  h = look.height
  # Chest and hips are about as deep as half their breadth.
  depth = 0.058 * h * body.scale * look.build
  edges = []
  for (forward, up), half in (
    (pose.shoulder, 0.1 * h * look.build),
    (pose.hip, 0.062 * h * look.build),
  ):
    a, b = put(forward, up, half), put(forward, up, -half)
    edges.append(
      (min(a[0], b[0]) - depth, max(a[0], b[0]) + depth, (a[1] + b[1]) / 2)
    )
  return edges


def _band(edges, start: float, end: float):
  """Returns the part of the trunk from one share of its length to another."""
  (l0, r0, y0), (l1, r1, y1) = edges
  corners = []
  for share in (start, end):
    corners.append(
      (l0 + (l1 - l0) * share, r0 + (r1 - r0) * share, y0 + (y1 - y0) * share)
    )
  (a, b, c), (d, e, f) = corners
  return (a, c, b, c, e, f, d, f)


def draw_trunk(body: Figure) -> None:
  """Draws hips, chest with its pattern, and what is carried on it."""
  pen, look, pose, put, scale = body[:5]
  edges = _trunk_edges(body)
  (l0, r0, y0), (l1, r1, y1) = edges
  h = look.height * scale
  if look.bag == "back" and body.facing < 0.3:
    _draw_backpack(body)
  if look.legs == "skirt":
    knee = max(p[1] for p in (put(*pose.knees[0]), put(*pose.knees[1])))
    flare = 0.035 * h
    pen.polygon(
      (l1, y1 - 0.04 * h, r1, y1 - 0.04 * h, r1 + flare, knee, l1 - flare,
       knee),
      look.bottom,
    )  # fmt: skip
  else:
    pen.polygon(
      (l1, y1 - 0.04 * h, r1, y1 - 0.04 * h, r1 - 0.01 * h, y1 + 0.055 * h,
       l1 + 0.01 * h, y1 + 0.055 * h),
      look.bottom,
    )  # fmt: skip
  slope = 0.26 * (r0 - l0)
  pen.polygon(
    (
      l0 + slope, y0 - 0.036 * h, r0 - slope, y0 - 0.036 * h, r0, y0,
      r0 - 0.1 * (r0 - l0), (y0 + y1) / 2, r1, y1 + 0.012 * h,
      l1, y1 + 0.012 * h, l0 + 0.1 * (r0 - l0), (y0 + y1) / 2, l0, y0,
    ),
    look.top,
  )  # fmt: skip
  _draw_pattern(body, edges)
  if look.bag == "back" and body.facing >= 0.3:
    _draw_backpack(body)


def _draw_pattern(body: Figure, edges) -> None:
  pen, look = body.pen, body.look
  (l0, r0, y0), (_, _, y1) = edges
  if look.pattern == "stripes":
    inner = [(left * 0.94 + right * 0.06, right * 0.94 + left * 0.06, y)
             for left, right, y in edges]  # fmt: skip
    for start in (0.12, 0.4, 0.68):
      pen.polygon(_band(inner, start, start + 0.13), look.second)
  elif look.pattern == "band":
    pen.polygon(_band(edges, 0.3, 0.52), look.second)
  elif look.pattern == "split":
    pen.polygon(_band(edges, 0.55, 1.0), look.second)
  elif look.pattern == "vest" and body.facing < 0.5:
    middle, half = (l0 + r0) / 2, 0.13 * (r0 - l0)
    pen.polygon(
      (middle - half, y0, middle + half, y0, middle + half, y1, middle - half,
       y1),
      look.second,
    )  # fmt: skip


def _draw_backpack(body: Figure) -> None:
  pen, look, pose, put, scale = body[:5]
  h = look.height
  top = put(pose.shoulder[0] - 0.09 * h, pose.shoulder[1] - 0.01 * h)
  low = put(pose.hip[0] - 0.1 * h, pose.hip[1] + 0.06 * h)
  q = (0.05 + 0.03 * abs(body.facing)) * scale * h
  pen.ribbon(
    top, ((top[0] + low[0]) / 2, (top[1] + low[1]) / 2), low, q * 0.8,
    q * 1.1, q, look.bag_colour,
  )  # fmt: skip


def draw_head(body: Figure) -> None:
  """Draws neck, head and hair or hat."""
  pen, look, pose, put, scale = body[:5]
  h = look.height * scale
  column, row = put(*pose.head)
  base = put(pose.shoulder[0], pose.shoulder[1] + 0.02 * look.height)
  pen.line((base, (column, row)), 0.055 * h, draws.tone(look.skin, 0.85))
  across, down = 0.05 * h, 0.064 * h
  side = math.copysign(math.sqrt(1.0 - min(1.0, body.facing**2)),
                       1.0 if body.near else -1.0)  # fmt: skip
  back = -side * 0.018 * h
  if look.long_hair:
    pen.ellipse(
      column + back * 1.3, row + 0.03 * h, across * 1.1, down * 1.25, look.hair
    )
  pen.ellipse(column + back, row - 0.008 * h, across * 1.06, down * 1.04,
              look.hair)  # fmt: skip
  if body.facing < 0.6:
    lower = max(0.0, body.facing)
    pen.ellipse(
      column + side * 0.014 * h, row + (0.016 + 0.01 * lower) * h,
      across * 0.86, down * 0.82, look.skin,
    )  # fmt: skip
  if look.hat is not None:
    top = row - 0.03 * h
    pen.polygon(
      (
        column - across * 1.05, top, column - across * 0.8, top - 0.045 * h,
        column + across * 0.8, top - 0.045 * h, column + across * 1.05, top,
        column + side * across * 1.7, top + 0.006 * h,
      ),
      look.hat,
    )  # fmt: skip

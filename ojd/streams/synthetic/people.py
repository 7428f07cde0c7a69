"""People: a look drawn once, and a pose for every moment.

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

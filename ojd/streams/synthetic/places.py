"""From a place's key to the place, and from a time to its actors."""

import functools
import math

from ojd.streams.synthetic import draws, greens, streets, world

SCENES = ("street", "sports", "park", "night_fall", "cuts")
# What a cut may lead to.
_KINDS = ("street", "sports", "park", "night_fall")
_CLASSES = {
  "street": ("person", "bicycle", "car", "bus", "truck", "dog"),
  "sports": ("person",),
  "park": ("person", "bicycle", "dog"),
}
_HAZE = {
  "clear": (196, 208, 220), "overcast": (188, 192, 196),
  "rain": (164, 170, 176), "snow": (208, 210, 214),
}  # fmt: skip
_CLARITY = {"clear": 260.0, "overcast": 160.0, "rain": 80.0, "snow": 75.0}
_SHADE = {"clear": 0.5, "overcast": 0.16, "rain": 0.12, "snow": 0.12}


def class_names(scene: str, *, has_cuts: bool) -> tuple[str, ...]:
  """Returns the classes of a scene, background first."""
  kind = "street" if has_cuts or scene == "night_fall" else scene
  return ("background", *_CLASSES[kind])


def key_at(scene: str, seed: int, turn: int) -> world.PlaceKey:
  """Returns the place after a number of cuts.

  The scene itself comes first, then all kinds in an order drawn from the
  seed; neighbours differ in kind.
  """
  order = [_KINDS[i] for i in draws.generator(2, seed).permutation(len(_KINDS))]
  if scene in order:
    first = order.index(scene)
    order = order[first:] + order[:first]
  return world.PlaceKey(order[turn % len(order)], seed, turn)


def darkness(key: world.PlaceKey, share: float, *, has_cuts: bool) -> float:
  """Returns 0 by day to 1 by night, at a share of the stream's length."""
  if key.scene != "night_fall":
    return 0.0
  if has_cuts and key.turn:
    return draws.between(draws.generator(3, key.seed, key.turn), 0.7, 1.0)
  return draws.smoothstep(share)


@functools.lru_cache(maxsize=8)
def build(key: world.PlaceKey) -> world.Place:
  """Draws the place."""
  kind = "street" if key.scene == "night_fall" else key.scene
  rng = draws.generator(4, _KINDS.index(key.scene), key.seed, key.turn)
  weather = _draw_weather(rng, key)
  angle = draws.between(rng, 0.15, 0.85) * math.pi
  length = draws.between(rng, 0.45, 1.0)
  props, lamps, flows, players = (), (), (), ()
  if kind == "street":
    plan, lens = streets.draw_plan(rng), streets.draw_lens(rng)
    props, lamps = streets.draw_props(rng, plan)
    flows = streets.draw_flows(lens, plan)
  elif kind == "park":
    plan, lens = greens.draw_park_plan(rng), greens.draw_park_lens(rng)
    props, lamps = greens.draw_park_props(rng, plan)
    flows = greens.draw_park_flows(lens, plan)
  else:
    plan, lens = greens.draw_pitch_plan(rng), greens.draw_pitch_lens(rng)
    players = greens.draw_players(rng)
  return world.Place(
    key, lens, world.draw_motion(rng),
    sun=(length * math.cos(angle), -0.6 * length * math.sin(angle)),
    shade=_SHADE[weather], weather=weather, haze=_HAZE[weather],
    clarity=_CLARITY[weather], plan=plan, props=props, lamps=lamps,
    flows=flows,
    # Timetables repeat their order of kinds: each place enters it elsewhere.
    epoch=draws.between(rng, 0.0, 2000.0), players=players,
  )  # fmt: skip


def _draw_weather(rng, key: world.PlaceKey) -> str:
  kinds = {
    "sports": ("clear", "clear", "overcast", "rain"),
    "night_fall": ("clear", "overcast", "rain"),
  }.get(key.scene, ("clear", "clear", "overcast", "rain", "snow"))
  return draws.pick(rng, kinds)


@functools.lru_cache(maxsize=1024)
def _trips(key: world.PlaceKey, flow: int, number: int):
  source = build(key).flows[flow]
  rng = draws.generator(
    5, _KINDS.index(key.scene), key.seed, key.turn, flow, number
  )
  return source.draw(rng, number, number * source.headway)


def cast(key: world.PlaceKey, time: float) -> list[world.Placed]:
  """Returns every actor of the place at a time in seconds."""
  place = build(key)
  placed = greens.team(place, time) if place.players else []
  time += place.epoch
  for i, flow in enumerate(place.flows):
    first = math.floor((time - flow.linger) / flow.headway)
    last = math.ceil((time + flow.lead) / flow.headway)
    for number in range(first, last + 1):
      for trip in _trips(key, i, number):
        actor = world.where(trip, time)
        if actor is not None:
          placed.append(actor)
  return placed

"""The 30 streams of LVS, the long video set of the JITNet paper.

A stream's folder is named, and its chunks begin, with its id. Classes are in
the order of their labels: where objects overlap the later group wins.
"""

from typing import NamedTuple

_PERSON = "person"
_AUTO = "auto=car,bus,truck"
_BIKE = "bike=bicycle,motorcycle"
_PERSON_AUTO = f"{_PERSON};{_AUTO}"
_PERSON_AUTO_BIKE = f"{_PERSON};{_AUTO};{_BIKE}"

FIXED, MOVING, EGO = "Sports (Fixed)", "Sports (Moving)", "Sports (Ego)"
ANIMALS, TRAFFIC, DRIVING = "Animals", "Traffic", "Driving/Walking"
OVERALL = "Overall"  # in the paper's average, but in none of its categories


class LvsStream(NamedTuple):
  """What the paper calls a stream and what it tells apart in it."""

  name: str
  category: str
  classes: str  # as --classes takes them


STREAMS = {
  "badminton1": LvsStream("Badminton", FIXED, _PERSON),
  "squash1": LvsStream("Squash", FIXED, _PERSON),
  "table_tennis1": LvsStream("Table Tennis", FIXED, _PERSON),
  "softball1": LvsStream("Softball", FIXED, _PERSON),
  "soccer1": LvsStream("Soccer", MOVING, _PERSON),
  "tennis3": LvsStream("Tennis", MOVING, _PERSON),
  "volleyball3": LvsStream("Volleyball", MOVING, _PERSON),
  "ice_hockey1": LvsStream("Ice Hockey", MOVING, _PERSON),
  "kabaddi1": LvsStream("Kabaddi", MOVING, _PERSON),
  "figure_skating1": LvsStream("Figure Skating", MOVING, _PERSON),
  "drone2": LvsStream("Drone", MOVING, _PERSON),
  "hockey1": LvsStream("Hockey", OVERALL, _PERSON),
  "ice_hockey_ego_1": LvsStream("Ego Ice Hockey", EGO, _PERSON),
  "ego_dodgeball1": LvsStream("Ego Dodgeball", EGO, _PERSON),
  "ego_soccer1": LvsStream("Ego Soccer", EGO, _PERSON),
  "basketball_ego1": LvsStream("Ego Basketball", EGO, "person;car"),
  "biking1": LvsStream("Biking", EGO, f"{_PERSON};{_BIKE}"),
  "elephant1": LvsStream("Elephant", ANIMALS, "elephant"),
  "birds2": LvsStream("Birds", ANIMALS, "bird"),
  "giraffe1": LvsStream("Giraffe", ANIMALS, "person;giraffe"),
  "horses1": LvsStream("Horse", ANIMALS, "person;horse"),
  "dogs2": LvsStream("Dog", ANIMALS, f"person;dog;{_AUTO}"),
  "streetcam1": LvsStream("Streetcam1", TRAFFIC, _PERSON_AUTO),
  "streetcam2": LvsStream("Streetcam2", TRAFFIC, _PERSON_AUTO),
  "jackson_hole1": LvsStream("Jackson Hole", TRAFFIC, _PERSON_AUTO),
  "toomer1": LvsStream("Toomer", TRAFFIC, _PERSON_AUTO),
  "samui_murphys1": LvsStream("Murphys", TRAFFIC, _PERSON_AUTO_BIKE),
  "samui_walking_street1": LvsStream(
    "Samui Street", TRAFFIC, _PERSON_AUTO_BIKE
  ),
  "driving1": LvsStream("Driving", DRIVING, _PERSON_AUTO_BIKE),
  "walking1": LvsStream("Walking", DRIVING, _PERSON_AUTO_BIKE),
}

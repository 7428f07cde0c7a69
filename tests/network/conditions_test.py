"""What --link says, and the lines that it is refused with."""

import pytest

from ojd.errors import UserError
from ojd.network import conditions
from ojd.network.conditions import Conditions, Pace, Upload
from ojd.network.link import Link


def test_everything_may_be_said_or_nothing():
  for text in ("", "  ", "ideal"):
    assert conditions.parse(text) == Conditions()
  text = (
    "up_mbps=8, rtt_ms=60,teacher_ms=50,update_ms=10,device_ms=143,codec=jpeg,"
    "quality=80,kbps=150,labels=original"
  )
  assert conditions.parse(text) == Conditions(
    Link(up_mbps=8, rtt_ms=60),
    Pace(50, 10, 143),
    Upload("jpeg", 150, 80, "original"),
  )


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("ideal,rtt_ms=1", "'ideal': unknown; known are up_mbps, down_mbps"),
    ("codec=png", "'codec=png': one of raw, jpeg, h264"),
    ("quality=0", "'quality=0': from 1 to 95"),
    ("quality=80.5", "'quality=80.5': a whole number"),
    ("kbps=0", "'kbps=0': from 1 to 1e+06"),
    ("labels=mine", "'labels=mine': one of decoded, original"),
    ("device_ms=-1", "'device_ms=-1': from 0 to 1e+06"),
    ("device_ms=nan", "'device_ms=nan': from 0 to 1e+06"),
  ],
)
def test_refusals_are_one_line(text, words):
  with pytest.raises(UserError) as error:
    conditions.parse(text)
  assert str(error.value).startswith("--link: ")
  assert words in str(error.value) and "\n" not in str(error.value)

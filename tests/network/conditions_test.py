"""What --link says, and the lines that it is refused with."""

import pytest

from ojd.network import conditions
from ojd.network.conditions import Conditions, Upload
from ojd.network.simulation import Link, Pace
from tests.reference.refusals import refused


def test_everything_may_be_said_or_nothing():
  for text in ("", "  ", "ideal"):
    assert conditions.parse(text) == Conditions()
  text = (
    "up_mbps=8, down_mbps = 2.5,rtt_ms=60,jitter_ms=5,loss=0.01,"
    "outage=0-1.5+1.5-2+1e2-1e3,teacher_ms=50,update_ms=10,device_ms=143,"
    "codec=jpeg,quality=80,kbps=150,labels=original"
  )
  outages = (0, 1.5), (1.5, 2), (100, 1000)
  assert conditions.parse(text) == Conditions(
    Link(8, 2.5, 60, 5, 0.01, outages),
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
    ("labels=mine", "'labels=mine': one of decoded, original"),
    ("device_ms=nan", "'device_ms=nan': from 0 to 1e+06"),
    ("kbps=0", "'kbps=0': from 1 to 1e+06"),
    ("rtt_ms=3,", "known are up_mbps, down_mbps, rtt_ms, jitter_ms, loss, "),
    ("speed=3", "'speed=3': unknown; known are up_mbps"),
    ("speed\n=3", "known are up_mbps"),
    ("x" * 500, "..."),
    ("rtt_ms", "rtt_ms has no value"),
    ("rtt_ms=1,loss=0,rtt_ms=1", "rtt_ms is there twice"),
    ("rtt_ms=fast", "'fast' is no number"),
    ("rtt_ms=fa\nst", "is no number"),
    ("rtt_ms=nan", "from 0 to 100000"),
    ("loss=1", "from 0 to 0.9"),
    ("down_mbps=1e999", "from 0.001 to 1e+06"),
    ("outage=5", "START-END"),
    ("outage=5-", "'' is no number"),
    ("outage=5-5", "one after the other"),
    ("outage=5-8+7-9", "one after the other"),
    ("outage=" + "+".join(f"{i}-{i}.5" for i in range(1001)), "at most 1000"),
  ],
)
def test_refusals_are_one_line(text, words):
  with refused(words) as error:
    conditions.parse(text)
  assert str(error.value).startswith("--link: ") and len(str(error.value)) < 250

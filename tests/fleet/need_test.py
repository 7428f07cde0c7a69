"""Who has the teacher: by hand, and that nobody waits for ever."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ojd.fleet import need
from ojd.fleet.need import Coins, Standing, Wish


def test_a_student_falls_as_it_fell():
  standing = need.taught(Standing(), 10.0, 0.2, 0.9)
  assert standing == Standing(0.9, 10.0, 0.0)
  standing = need.taught(standing, 14.0, 0.5, 0.8)
  # 0.4 in 4 s
  assert standing.taught_at == 14.0 and standing.accuracy == 0.8
  assert abs(standing.fall - 0.1) < 1e-12
  wanted = need.wish(standing, 15.0, 17.0)
  assert wanted.since == 15.0
  assert abs(wanted.accuracy - 0.5) < 1e-12 and abs(wanted.gain - 0.3) < 1e-12
  # It has no more to lose than it had.
  assert need.wish(standing, 15.0, 1000.0) == Wish(15.0, 0.0, 0.8)
  # One that rose is not believed to rise on.
  assert need.taught(standing, 20.0, 0.95, 0.97).fall == 0.0


def test_who_is_below_goes_first_and_then_who_gains_most():
  wishes = {
    "fine, gains much": Wish(0.0, 0.9, 0.5),
    "fine, gains little": Wish(0.0, 0.85, 0.1),
    "below, gains little": Wish(1.0, 0.7, 0.05),
    "below, gains much": Wish(2.0, 0.3, 0.4),
    "never taught": need.wish(Standing(), 2.0, 2.0),
  }
  order = need.in_order(wishes, 3.0, threshold=0.8, patience=10.0)
  assert order == [
    *("never taught", "below, gains much", "below, gains little"),
    *("fine, gains much", "fine, gains little"),
  ]
  # Whoever has waited for long goes before all, the longest first.
  order = need.in_order(wishes, 11.5, threshold=0.8, patience=10.0)
  assert order[:3] == [
    *("fine, gains little", "fine, gains much", "below, gains little")
  ]


def test_coins_come_at_their_rate_and_are_not_hoarded():
  coins = need.begin(2.0, 5.0)
  assert coins == Coins(3.0, 5.0)
  coins = need.earned(coins._replace(number=0.0), 2.0, 5.25)
  assert coins == Coins(0.5, 5.25)
  assert need.earned(coins, 2.0, 100.0) == Coins(3.0, 100.0)
  # A clock that goes back brings nothing.
  assert need.earned(coins, 2.0, 5.0) == Coins(0.5, 5.25)
  # Less than one call a second is still a call now and then.
  slow = need.begin(0.1, 0.0)._replace(number=0.0)
  assert need.earned(slow, 0.1, 20.0).number == 1.1


@settings(max_examples=30, deadline=None)
@given(
  falls=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=12),
  rate=st.floats(0.2, 20.0),
)
def test_nobody_waits_for_ever(falls, rate):
  """Streams that always want the teacher, some of whom always gain more."""
  names = [str(i) for i in range(len(falls))]
  standings = {
    name: Standing(0.9, 0.0, fall)
    for name, fall in zip(names, falls, strict=True)
  }
  since = dict.fromkeys(names, 0.0)
  patience = need.patience(len(names), rate)
  coins, longest, granted, step = need.begin(rate, 0.0), 0.0, 0, 0.05
  seconds = 6 * patience + 2
  for tick in range(int(seconds / step)):
    now = tick * step
    coins = need.earned(coins, rate, now)
    wishes = {n: need.wish(standings[n], since[n], now) for n in names}
    order = need.in_order(wishes, now, 0.8, patience)
    for name in order[: int(coins.number)]:
      longest = max(longest, now - since[name])
      coins = coins._replace(number=coins.number - 1)
      since[name], granted = now, granted + 1
      standings[name] = standings[name]._replace(taught_at=now)
  longest = max(longest, *(seconds - step - x for x in since.values()))
  # Whose patience is over has at most all others before it.
  assert longest <= patience + len(names) / rate + 2 / rate + 2 * step
  # And no call is lost, but those of the beginning.
  assert granted >= rate * (seconds - step) - 2

"""The report as a person uses it: a browser, a file, no network."""

import io
import json
import re
import time

import numpy as np
import pytest
from PIL import Image

from ojd.report import run_page, runs_page
from tests import browser, workdirs

keys = pytest.importorskip("selenium.webdriver.common.keys")
chains = pytest.importorskip("selenium.webdriver.common.action_chains")
Keys, ActionChains = keys.Keys, chains.ActionChains

EVIL = "</script><script>alert(1)</script>"
SKIPPED, UNJUDGED = 33, 44
WIDE, NARROW = ".wide svg[data-plot]", ".narrow svg[data-plot]"


@pytest.fixture(scope="module")
def driver():
  with browser.start() as made:
    yield made


@pytest.fixture(scope="module")
def lines():
  made = workdirs.rows(skipped=(SKIPPED,))
  (row,) = (row for row in made if row["t"] == UNJUDGED)
  del row["eval_miou"]
  return made


@pytest.fixture(scope="module")
def address(lines, tmp_path_factory):
  """Of the page of a run with a video and an evil class."""
  path = tmp_path_factory.mktemp("runs") / "a b#?%20"
  numbers = {"miou": {"mean": 0.625, "per_class": {EVIL: 0.5}}}
  workdirs.make(path, lines, numbers)
  config = workdirs.config(classes=EVIL)
  config["class_names"][1] = EVIL
  (path / "config.json").write_text(json.dumps(config))
  workdirs.add_video(path, lines)
  return run_page.write(path).as_uri()


@pytest.fixture
def page(driver, address):
  """The open page; afterwards, no error may have been logged."""
  browser.set_screen(driver, 1280, 900)
  driver.get(address)
  browser.wait(driver, "document.querySelector('video').readyState >= 1")
  yield driver
  resources = driver.execute_script(
    "return performance.getEntriesByType('resource').map(x => x.name)"
  )
  assert all(name.startswith(("file:", "data:")) for name in resources)
  assert driver.get_log("browser") == []


def _find(driver, selector):
  return driver.find_element("css selector", selector)


def _find_all(driver, selector):
  return driver.find_elements("css selector", selector)


def _text(driver, selector):
  return driver.execute_script(
    "return document.querySelector(arguments[0]).textContent", selector
  )


def _offset(driver, t, chart):
  """Pixels from the middle of a chart to frame t in it."""
  svg = _find(driver, chart)
  plot = json.loads(svg.get_attribute("data-plot"))
  (left, right), (first, last) = plot["x"], plot["xlim"]
  x = left + (t - first) / (last - first) * (right - left)
  return svg, round((x - 0.5) * svg.size["width"])


def _point(driver, t, chart=WIDE, *, click=False):
  svg, offset = _offset(driver, t, chart)
  # At its lower end: the video stays above what is being looked at.
  driver.execute_script("arguments[0].scrollIntoView({block: 'end'})", svg)
  actions, down = ActionChains(driver, duration=0), 0.3 * svg.size["height"]
  actions.move_to_element_with_offset(svg, offset, round(down))
  (actions.click() if click else actions).perform()


def _words(lines, t):
  """What the page should say of frame t, from its line."""
  (row,) = (row for row in lines if row["t"] == t)
  key = [row for row in lines if row["is_key"] and row["t"] <= t][-1]
  since, miou, updates = t - key["t"], row.get("eval_miou"), key["num_updates"]
  words = f"{since} frame{'s' * (since != 1)} after the last " if since else ""
  return [
    f"frame {t} ({t / workdirs.FPS:.2f} s)",
    "mIoU not measured" if miou is None else f"mIoU {miou:.3f}",
    f"stride {row['stride']}",
    f"{words}key frame: {key['miou_before']:.3f} \u2192 "
    f"{key['miou_after']:.3f}, {updates} update{'s' * (updates != 1)}",
  ]


def _assert_at(driver, lines, t):
  """Frame t is chosen, shown and described, and the video stands still."""
  assert _text(driver, ".caption") == " \u00b7 ".join(_words(lines, t))
  place = [row["t"] for row in lines].index(t)
  browser.wait(
    driver,
    "const v = document.querySelector('video'); v.paused && !v.seeking"
    " && Math.floor(v.currentTime * arguments[0]) === arguments[1]",
    *(workdirs.FPS, place),
  )
  _wait_for_picture(driver, workdirs.grey_level(t))


def _wait_for_picture(driver, level):
  """Until the first panel of the video is as bright as it should be."""
  deadline, found = time.monotonic() + 5, -9.0
  while abs(found - level) >= 1.8:
    assert time.monotonic() < deadline, (found, level)
    png = _find(driver, "video").screenshot_as_png
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    height, width = pixels.shape
    found = pixels[height // 2, width // 6]


@pytest.mark.parametrize("t", (0, 7, 10, UNJUDGED, 59))
def test_pointing_says_the_numbers_of_the_frame(page, lines, t):
  assert not _find(page, ".wide .tip").is_displayed()
  _point(page, t)
  assert _find(page, ".wide .tip").is_displayed()
  assert _text(page, ".wide .tip").split("\n") == _words(lines, t)
  _assert_in_sight(page, ".wide")
  ActionChains(page, duration=0).move_to_element(_find(page, "h1")).perform()
  assert not _find(page, ".wide .tip").is_displayed()


def _assert_in_sight(page, chart):
  """The numbers at the pointer lie in the chart, below the video."""
  player, box, tip = page.execute_script(
    "return arguments[0].map((x) => document.querySelector(x))"
    ".map((x) => x.getBoundingClientRect().toJSON())",
    [".player", chart, f"{chart} .tip"],
  )
  assert box["left"] - 1 <= tip["left"] and tip["right"] <= box["right"] + 1
  assert player["bottom"] <= tip["top"] and tip["bottom"] <= box["bottom"] + 1


def test_a_click_leads_the_video_there(page, lines):
  # One before and one after the frame that is not in the video.
  for t in (21, 52):
    _point(page, t, click=True)
    _assert_at(page, lines, t)
  pin = page.execute_script(
    "const [a, b] = ['.wide line.pin', '.wide svg'].map("
    "(x) => document.querySelector(x).getBoundingClientRect());"
    "return a.x + a.width / 2 - b.x - b.width / 2"
  )
  assert pin == pytest.approx(_offset(page, 52, WIDE)[1], abs=1.5)


def test_arrows_go_from_key_frame_to_key_frame(page, lines):
  _point(page, 21, click=True)
  keys = 2 * [Keys.ARROW_RIGHT] + 5 * [Keys.ARROW_LEFT]
  for key, t in zip(keys, (30, 40, 30, 20, 10, 0, 0), strict=True):
    ActionChains(page).send_keys(key).perform()
    assert _text(page, ".caption").startswith(f"frame {t} ")
  _assert_at(page, lines, 0)
  chain = ActionChains(page).key_down(Keys.SHIFT)
  chain.send_keys(2 * Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
  _assert_at(page, lines, 2)
  slider = _find(page, ".wide")
  assert slider.get_attribute("aria-valuenow") == "2"
  assert slider.get_attribute("aria-valuetext") == ", ".join(_words(lines, 2))


def test_buttons_step_and_play(page, lines):
  previous, play, following, _ = _find_all(page, ".buttons button")
  following.click()
  following.click()
  _assert_at(page, lines, 20)
  previous.click()
  _assert_at(page, lines, 10)
  play.click()
  browser.wait(page, "arguments[0].textContent === 'pause'", play)
  browser.wait(page, "document.querySelector('video').currentTime > 0.7")
  play.click()
  # `paused` is true before the page has heard of it.
  browser.wait(page, "arguments[0].textContent === 'play'", play)
  t = int(re.match(r"frame (\d+)", _text(page, ".caption"))[1])
  assert t > 15
  now = float(_find(page, "video").get_property("currentTime"))
  assert [row["t"] for row in lines].index(t) == int(now * workdirs.FPS)
  # To choose a frame ends playing, too.
  _point(page, 10, click=True)
  play.click()
  browser.wait(page, "document.querySelector('video').currentTime > 0.6")
  _point(page, 52, click=True)
  _assert_at(page, lines, 52)


def _touch(page, kind, *points):
  page.execute_cdp_cmd(
    "Input.dispatchTouchEvent",
    {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]},
  )


def test_a_finger_on_a_phone_does_the_same(page, lines):
  browser.set_screen(page, 390, 844, is_phone=True)
  svg, _ = _offset(page, 0, NARROW)
  page.execute_script("arguments[0].scrollIntoView({block: 'center'})", svg)

  def place(t):
    svg, offset = _offset(page, t, NARROW)
    x, y, width, height = page.execute_script(
      "const a = arguments[0].getBoundingClientRect();"
      "return [a.x, a.y, a.width, a.height]",
      svg,
    )
    return x + width / 2 + offset, y + height / 2

  _touch(page, "touchStart", place(20))
  for t in range(21, 41):
    _touch(page, "touchMove", place(t))
  tip = "document.querySelector('.narrow .tip').textContent"
  said = "\n".join(_words(lines, 40))
  browser.wait(page, f"{tip} === arguments[0]", said)
  _assert_in_sight(page, ".narrow")
  _touch(page, "touchEnd")
  assert not _find(page, ".narrow .tip").is_displayed()
  _assert_at(page, lines, 40)
  _touch(page, "touchStart", place(10))
  _touch(page, "touchEnd")
  _assert_at(page, lines, 10)


@pytest.mark.parametrize("width", (390, 640, 641, 1280))
def test_no_screen_has_to_scroll_sideways(page, width):
  browser.set_screen(page, width, 844, is_phone=width < 600)
  assert browser.is_within(page, width)
  # Of the two charts one is to be seen, and the video is not cut off.
  shown = [_find(page, x).is_displayed() for x in (".wide", ".narrow")]
  assert sorted(shown) == [False, True]
  assert _find(page, "video").size["width"] <= width
  assert not browser.is_dark(page)
  browser.set_screen(page, width, 844, is_dark=True)
  assert browser.is_dark(page)


def test_the_command_can_be_copied(page):
  button = _find(page, "button.copy")
  button.click()
  browser.wait(page, "arguments[0].textContent === 'copied'", button)
  page.execute_script(
    "const area = document.createElement('textarea');"
    "area.id = 'area'; document.body.append(area); area.focus()"
  )
  area = _find(page, "#area")
  area.send_keys(Keys.CONTROL, "v")
  assert area.get_attribute("value") == workdirs.config()["command"]
  # Names are text and nothing else.
  assert EVIL in _find(page, "body").text


def test_without_scripts_all_is_there(driver, address):
  switch = "Emulation.setScriptExecutionDisabled"
  driver.execute_cdp_cmd(switch, {"value": True})
  try:
    browser.set_screen(driver, 1280, 900)
    driver.get(address)
    assert _find(driver, "video").get_attribute("controls")
    assert _find(driver, WIDE).is_displayed()
    assert not _find_all(driver, "button")
    assert "Run it again" in _find(driver, "body").text
  finally:
    driver.execute_cdp_cmd(switch, {"value": False})


def test_a_run_without_a_video_has_its_numbers(driver, lines, tmp_path):
  workdirs.make(tmp_path / "run", lines)
  browser.set_screen(driver, 1280, 900)
  driver.get(run_page.write(tmp_path / "run").as_uri())
  _point(driver, 21, click=True)
  assert _text(driver, ".caption").startswith("frame 21 \u00b7 mIoU ")
  assert len(_find_all(driver, ".buttons button")) == 2
  assert driver.get_log("browser") == []


def test_the_index_sorts_leads_to_reports_and_fits_a_phone(driver, tmp_path):
  for name, miou, threshold in (
    *(("a", 0.5, 0.8), ("b", 0.75, 0.9), ("c", None, 0.7), ("d", 0.0, 1)),
    ("e", 0.0625, 0.85),
  ):
    numbers = {"miou": {"mean": miou}}
    workdirs.make(tmp_path / name, numbers=numbers, a_thresh=threshold)
  (tmp_path / "d" / "config.json").write_text("{")
  entries = runs_page.rewrite(runs_page.find(tmp_path))
  runs_page.write(entries, tmp_path / "index.html")
  browser.set_screen(driver, 1280, 900)
  driver.get((tmp_path / "index.html").as_uri())
  order = lambda: "".join(x.text for x in _find_all(driver, "tbody th"))
  assert order() == "abcde"
  by_name = {head.text: head for head in _find_all(driver, "thead button")}
  for name, expected in (
    # What is not known comes last: d is damaged, c has no mIoU.
    *(("mIoU", "eabcd"), ("mIoU", "baecd"), ("a_thresh", "caebd")),
    *(("a_thresh", "beacd"), ("run", "abcde"), ("run", "edcba")),
  ):
    by_name[name].click()
    assert order() == expected, name
  marked = _find_all(driver, "th[aria-sort=descending]")
  assert [head.text.split()[0] for head in marked] == ["run"]
  browser.set_screen(driver, 390, 844, is_phone=True)
  assert browser.is_within(driver, 390)
  _find(driver, "tbody a").click()
  page = tmp_path / "e" / "report" / "index.html"
  browser.wait(driver, "location.href === arguments[0]", page.as_uri())
  assert driver.get_log("browser") == []

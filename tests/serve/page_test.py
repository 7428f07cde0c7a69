"""The page of the live view in a real browser, against a made-up run."""

import contextlib
import threading
import time

import pytest

from ojd.serve.server import LiveView
from tests import browser
from tests.reference import live_run

webdriver = pytest.importorskip("selenium.webdriver")
_STATE = "document.getElementById('state')"


@pytest.fixture(scope="module")
def driver():
  with browser.start() as made:
    yield made


@contextlib.contextmanager
def _running(address="127.0.0.1:0", token="", num_frames=200):
  """A view of a run that goes on, and how to end that."""
  view, over = LiveView(address, token), threading.Event()
  live_run.begin(view.display)
  for t in range(num_frames):
    live_run.step(view.display, t)

  def work():
    t = num_frames
    while not over.wait(0.05):
      live_run.step(view.display, t)
      t += 1

  thread = threading.Thread(target=work)
  thread.start()

  def end():
    over.set()
    thread.join()

  try:
    yield view, end
  finally:
    end()
    view.close()


def _wait_for_state(driver, name):
  browser.wait(driver, f"{_STATE}.className === '{name}'")


def _wait_for_picture(driver):
  browser.wait(driver, "document.getElementById('overlay').naturalWidth > 190")


def _complaints(driver):
  return [e for e in driver.get_log("browser") if e["level"] != "DEBUG"]


def _text(driver, selector):
  script = "return document.querySelector(arguments[0]).innerText"
  return driver.execute_script(script, selector)


_INKED = """
const card = document.querySelector(`[data-chart=${arguments[0]}]`);
const canvas = card.querySelector("canvas");
const pen = canvas.getContext("2d");
const style = getComputedStyle(document.documentElement);
const hex = style.getPropertyValue(arguments[1]).trim();
const want = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
let count = 0;
for (let i = 0; i < data.length; i += 4) {
  const off = want.map((w, k) => Math.abs(w - data[i + k]));
  if (data[i + 3] > 200 && Math.max(...off) < 12) count += 1;
}
return count;
"""


def test_page_shows_a_run_up_to_its_end(driver):
  with _running() as (view, end):
    driver.get_log("browser")
    driver.get(view.url)
    _wait_for_state(driver, "running")
    _wait_for_picture(driver)
    assert "frame" in _text(driver, "#state")
    assert _text(driver, "#stream") == "folder:clip"
    # Names are text, whatever they hold.
    assert _text(driver, "#classes").split() == ["person", "<b>car</b>"]
    tiles = _text(driver, "#tiles")
    for words in ("0.625", "31.3", "of 300", "frames skipped", "teacher fail"):
      assert words in tiles
    for name, color in (
      *(("miou", "--accent"), ("updates", "--key")),
      *(("stride", "--stride"), ("fps", "--accent")),
    ):
      assert driver.execute_script(_INKED, name, color) > 50, name
    before = _text(driver, "#state")
    browser.wait(driver, f"{_STATE}.innerText !== '{before}'")
    end()
    view.display.end(live_run.SUMMARY)
    view.close()
    _wait_for_state(driver, "finished")
    assert "has ended" in _text(driver, "#state")
    assert "person 0.813" in _text(driver, "#classes")
    assert "11.5x" in _text(driver, "#tiles")
    time.sleep(1.5)  # no look for a server that is gone
    assert _complaints(driver) == []


def test_pointer_reads_the_values_of_a_frame(driver):
  with _running() as (view, end):
    driver.get(view.url)
    browser.wait(driver, "run.series.stride && run.series.stride.length > 150")
    end()
    time.sleep(0.5)
    canvas = driver.find_element("css selector", "[data-chart=stride] canvas")
    actions = webdriver.ActionChains(driver)
    left = -canvas.size["width"] // 2 + 40  # two pixels right of frame 0
    actions.move_to_element_with_offset(canvas, left, 0).perform()
    output = "document.querySelector('[data-chart=stride] output').innerText"
    browser.wait(driver, f"/^frame [0-3]: 8$/.test({output})")
    assert _complaints(driver) == []


def test_page_says_that_the_connection_is_lost_and_comes_back(driver):
  with _running() as (view, _):
    driver.get(view.url)
    _wait_for_state(driver, "running")
    # As when the machine goes down: nobody says good-bye.
    view._server.servers[0].close()
    for connection in list(view._server.server_state.connections):
      view._loop.call_soon_threadsafe(connection.transport.abort)
    _wait_for_state(driver, "lost")
    assert "lost" in _text(driver, "#state")
    port = view.url.rstrip("/").rsplit(":", 1)[1]
    with _running(f"127.0.0.1:{port}", num_frames=30):
      _wait_for_state(driver, "running")
      browser.wait(driver, "run.series.stride.length < 150")
      _wait_for_picture(driver)
  driver.get("about:blank")
  driver.get_log("browser")


def test_token_in_the_address_opens_the_page_and_leaves_it(driver):
  with _running(token="open-sesame") as (view, _):
    driver.get(view.url)
    assert "needs its token" in _text(driver, "body")
    driver.get_log("browser")  # tells of the 401
    driver.get(f"{view.url}?token=open-sesame")
    _wait_for_state(driver, "running")
    _wait_for_picture(driver)
    assert driver.current_url == view.url
    assert driver.execute_script("return document.cookie") == ""
    page = driver.execute_script("return document.documentElement.outerHTML")
    assert "sesame" not in page
    assert _complaints(driver) == []


@pytest.mark.parametrize("is_dark", [False, True])
def test_page_fits_a_phone_in_both_colours(driver, is_dark):
  with _running() as (view, _):
    browser.set_screen(driver, 390, 844, is_phone=True, is_dark=is_dark)
    driver.get(view.url)
    _wait_for_picture(driver)
    browser.wait(driver, "run.series.stride && run.series.stride.length > 150")
    assert browser.is_within(driver, 390)
    assert browser.is_dark(driver) == is_dark
    assert driver.execute_script(_INKED, "stride", "--stride") > 50
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

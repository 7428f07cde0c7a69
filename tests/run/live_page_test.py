"""The page of the live view in a real browser, against a made-up run."""

import contextlib
import shutil
import threading
import time

import pytest

from ojd.run import live_view
from tests.reference import live_run

webdriver = pytest.importorskip("selenium.webdriver")
_BROWSERS = ("chromium", "google-chrome", "chromium-browser")
_FLAGS = (
  *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
  *("--disable-dev-shm-usage", "--disable-background-networking"),
  *("--disable-component-update", "--hide-scrollbars"),
)
_SECONDS = 10.0


@pytest.fixture(scope="module")
def browser():
  """Headless Chromium; skips where there is none."""
  program = next(filter(None, map(shutil.which, _BROWSERS)), None)
  driver = shutil.which("chromedriver")
  if not program or not driver:
    pytest.skip("no Chromium or no chromedriver on the PATH")
  options = webdriver.ChromeOptions()
  options.binary_location = program
  for flag in _FLAGS:
    options.add_argument(flag)
  options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
  made = webdriver.Chrome(options, webdriver.ChromeService(driver))
  yield made
  made.quit()


@contextlib.contextmanager
def _running(address="127.0.0.1:0", token="", num_frames=200):
  """A view of a run that goes on, and how to end that."""
  view, over = live_view.LiveView(address, token), threading.Event()
  live_run.begin(view.board)
  for t in range(num_frames):
    live_run.step(view.board, t)

  def work():
    t = num_frames
    while not over.wait(0.05):
      live_run.step(view.board, t)
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


def _wait(browser, script):
  """Until a JavaScript expression is true."""
  deadline = time.monotonic() + _SECONDS
  while not browser.execute_script(f"return {script}"):
    assert time.monotonic() < deadline, script
    time.sleep(0.05)


def _complaints(browser):
  return [e for e in browser.get_log("browser") if e["level"] != "DEBUG"]


def _text(browser, selector):
  script = "return document.querySelector(arguments[0]).innerText"
  return browser.execute_script(script, selector)


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


def test_page_shows_a_run_up_to_its_end(browser):
  with _running() as (view, end):
    browser.get_log("browser")
    browser.get(view.url)
    _wait(browser, "document.getElementById('state').className === 'running'")
    _wait(browser, "document.getElementById('overlay').naturalWidth > 190")
    assert "frame" in _text(browser, "#state")
    assert _text(browser, "#stream") == "folder:clip"
    # Names are text, whatever they hold.
    assert _text(browser, "#classes").split() == ["person", "<b>car</b>"]
    tiles = _text(browser, "#tiles")
    for words in ("0.625", "31.3", "of 300", "frames skipped", "teacher fail"):
      assert words in tiles
    for name, color in {
      "miou": "--accent",
      "updates": "--key",
      "stride": "--stride",
      "fps": "--accent",
    }.items():
      assert browser.execute_script(_INKED, name, color) > 50, name
    before = _text(browser, "#state")
    _wait(browser, f"document.getElementById('state').innerText !== '{before}'")
    end()
    view.board.end(live_run.SUMMARY)
    view.close()
    _wait(browser, "document.getElementById('state').className === 'finished'")
    assert "has ended" in _text(browser, "#state")
    assert "person 0.813" in _text(browser, "#classes")
    assert "11.5x" in _text(browser, "#tiles")
    time.sleep(1.5)  # no look for a server that is gone
    assert _complaints(browser) == []


def test_pointer_reads_the_values_of_a_frame(browser):
  with _running() as (view, end):
    browser.get(view.url)
    _wait(browser, "run.series.stride && run.series.stride.length > 150")
    end()
    time.sleep(0.5)
    canvas = browser.find_element("css selector", "[data-chart=stride] canvas")
    actions = webdriver.ActionChains(browser)
    left = -canvas.size["width"] // 2 + 40  # two pixels right of frame 0
    actions.move_to_element_with_offset(canvas, left, 0).perform()
    output = "document.querySelector('[data-chart=stride] output').innerText"
    _wait(browser, f"/^frame [0-3]: 8$/.test({output})")
    assert _complaints(browser) == []


def test_page_says_that_the_connection_is_lost_and_comes_back(browser):
  with _running() as (view, _):
    browser.get(view.url)
    _wait(browser, "document.getElementById('state').className === 'running'")
    # As when the machine goes down: nobody says good-bye.
    server = view._server
    server.shutdown()
    server.server_close()
    server.cut_off()
    _wait(browser, "document.getElementById('state').className === 'lost'")
    assert "lost" in _text(browser, "#state")
    port = view.url.rstrip("/").rsplit(":", 1)[1]
    with _running(f"127.0.0.1:{port}", num_frames=30):
      _wait(browser, "document.getElementById('state').className === 'running'")
      _wait(browser, "run.series.stride.length < 150")
      _wait(browser, "document.getElementById('overlay').naturalWidth > 190")
  browser.get("about:blank")
  browser.get_log("browser")


def test_token_in_the_address_opens_the_page_and_leaves_it(browser):
  with _running(token="open-sesame") as (view, _):
    browser.get(view.url)
    assert "needs its token" in _text(browser, "body")
    browser.get_log("browser")  # tells of the 401
    browser.get(f"{view.url}?token=open-sesame")
    _wait(browser, "document.getElementById('state').className === 'running'")
    _wait(browser, "document.getElementById('overlay').naturalWidth > 190")
    assert browser.current_url == view.url
    script = "return document.cookie + document.documentElement.outerHTML"
    assert "sesame" not in browser.execute_script(script)
    assert browser.execute_script("return document.cookie") == ""
    assert _complaints(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_in_both_colours(browser, scheme):
  metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2}
  features = [{"name": "prefers-color-scheme", "value": scheme}]
  with _running() as (view, _):
    browser.execute_cdp_cmd(
      "Emulation.setDeviceMetricsOverride", metrics | {"mobile": True}
    )
    browser.execute_cdp_cmd(
      "Emulation.setEmulatedMedia", {"features": features}
    )
    browser.get(view.url)
    _wait(browser, "document.getElementById('overlay').naturalWidth > 190")
    _wait(browser, "run.series.stride && run.series.stride.length > 150")
    assert browser.execute_script(
      "return document.documentElement.scrollWidth <= 390"
    )
    paper = browser.execute_script(
      "return getComputedStyle(document.body).backgroundColor"
    )
    rgb = [int(x) for x in paper[4:-1].split(",")]
    assert (min(rgb) > 200) if scheme == "light" else (max(rgb) < 60)
    assert browser.execute_script(_INKED, "stride", "--stride") > 50
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

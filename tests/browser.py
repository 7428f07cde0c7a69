"""A headless Chromium, where there is one."""

import contextlib
import re
import shutil
import time

import pytest

_FLAGS = (
  *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
  *("--disable-dev-shm-usage", "--disable-background-networking"),
  "--disable-component-update",
  # No address but this one's has a machine: to ask for it logs an error.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  *("--window-size=1280,900", "--hide-scrollbars"),
)


@contextlib.contextmanager
def start():
  """A driver of selenium; skips, saying why, where something is missing."""
  webdriver = pytest.importorskip("selenium.webdriver")
  names = ("chromium", "chromium-browser", "google-chrome")
  browser = next(filter(None, map(shutil.which, names)), None)
  driver = shutil.which("chromedriver")
  if browser is None or driver is None:
    missing = "chromium" if browser is None else "chromedriver"
    pytest.skip(f"no {missing} on the PATH")
  options = webdriver.ChromeOptions()
  options.binary_location = browser
  for flag in _FLAGS:
    options.add_argument(flag)
  options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
  service = webdriver.ChromeService(driver)
  made = webdriver.Chrome(options=options, service=service)
  try:
    yield made
  finally:
    made.quit()


def set_screen(driver, width, height, *, is_phone=False, is_dark=False):
  """Gives the page a screen of that size."""
  sizes = {"width": width, "height": height, "deviceScaleFactor": 1}
  driver.execute_cdp_cmd(
    "Emulation.setDeviceMetricsOverride", sizes | {"mobile": is_phone}
  )
  driver.execute_cdp_cmd(
    "Emulation.setTouchEmulationEnabled", {"enabled": is_phone}
  )
  scheme = "dark" if is_dark else "light"
  feature = {"name": "prefers-color-scheme", "value": scheme}
  driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def wait(driver, expression, *args):
  """Until an expression of JavaScript, or the last of a few lines, is true."""
  head, semicolon, last = expression.rpartition(";")
  deadline = time.monotonic() + 10
  while not driver.execute_script(f"{head}{semicolon} return {last}", *args):
    assert time.monotonic() < deadline, f"never: {expression}"
    time.sleep(0.02)


def is_dark(driver):
  """Whether the page is all but black; it is all but white otherwise."""
  script = "return getComputedStyle(document.body).backgroundColor"
  paper = [int(x) for x in re.findall(r"\d+", driver.execute_script(script))]
  assert min(paper) > 200 or max(paper) < 60
  return max(paper) < 60


def is_within(driver, width):
  """Whether the page has that width, and nothing in it has more."""
  script = "return [document.documentElement.scrollWidth, innerWidth]"
  return driver.execute_script(script) == [width, width]

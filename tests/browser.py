"""A headless Chromium, where there is one."""

import contextlib
import shutil

import pytest

_FLAGS = (
  *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
  *("--disable-dev-shm-usage", "--disable-background-networking"),
  "--disable-component-update",
  # No address has a machine: a page that asks for one logs an error.
  "--host-resolver-rules=MAP * ~NOTFOUND",
  *("--window-size=1280,900", "--hide-scrollbars"),
)


@contextlib.contextmanager
def start():
  """A driver of selenium; skips, saying why, where something is missing."""
  selenium = pytest.importorskip("selenium", reason="selenium is missing")
  names = ("chromium", "chromium-browser", "google-chrome")
  browser = next(filter(None, map(shutil.which, names)), None)
  driver = shutil.which("chromedriver")
  if browser is None or driver is None:
    missing = "chromium" if browser is None else "chromedriver"
    pytest.skip(f"no {missing} on the PATH")
  del selenium
  from selenium import webdriver

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
  driver.execute_cdp_cmd(
    "Emulation.setDeviceMetricsOverride",
    {
      "width": width,
      "height": height,
      "deviceScaleFactor": 1,
      "mobile": is_phone,
    },
  )
  driver.execute_cdp_cmd(
    "Emulation.setTouchEmulationEnabled", {"enabled": is_phone}
  )
  scheme = "dark" if is_dark else "light"
  feature = {"name": "prefers-color-scheme", "value": scheme}
  driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

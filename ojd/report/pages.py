"""Pages from templates: each is one file that needs nothing but itself."""

import base64
import functools
import importlib.resources
import io
import pathlib
from typing import Any

import jinja2
import markupsafe
from PIL import Image

from ojd.formats.replacing import replacing
from ojd.report import values

# In base.html; by it a page is known as one that may be written again.
_MADE_HERE = b'<meta name="generator" content="ojd">'
_HEAD_BYTES = 4096  # in which it stands
_MAX_IMAGE_WIDTH = 1600  # of a picture in a page


def write(path: pathlib.Path, template: str, **content: Any) -> None:
  """Writes a page in one step, its folder too.

  Args:
    path: of the file; a browser sees the old page or the new.
    template: its name in `templates`.
    content: every name that the template has; a missing one raises
      `jinja2.UndefinedError`, and nothing is written.
  """
  page = render(template, **content)
  path.parent.mkdir(parents=True, exist_ok=True)
  with replacing(path) as beside:
    beside.write_text(page, encoding="utf-8")


def render(template: str, **content: Any) -> str:
  """A page as text; every value is escaped unless it is Markup."""
  return _environment().get_template(template).render(**content)


def is_ours(path: pathlib.Path) -> bool:
  """Whether a file was written by `write`."""
  with path.open("rb") as file:
    return _MADE_HERE in file.read(_HEAD_BYTES)


@functools.cache
def _environment():
  made = jinja2.Environment(
    loader=jinja2.PackageLoader("ojd.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  made.filters |= {function.__name__: function for function in values.FILTERS}
  made.filters["svg"] = _svg
  made.tests["known"] = values.is_number
  made.globals["asset"] = asset
  # For `tojson`, which lets no text end the element around it.
  made.policies["json.dumps_kwargs"] = {
    "allow_nan": False,
    "separators": (",", ":"),
  }
  return made


# The two things that are no text. Both are safe: assets are files of this
# package, and in a chart matplotlib has escaped every text that it was given.


def asset(name: str) -> markupsafe.Markup:
  """A stylesheet or script of this package."""
  file = importlib.resources.files("ojd.report") / "assets" / name
  return markupsafe.Markup(file.read_text("utf-8"))


def _svg(chart: str) -> markupsafe.Markup:
  """An element of `charts`."""
  return markupsafe.Markup(chart)


def image_address(path: pathlib.Path) -> str:
  """A JPEG as a data address; "" where it cannot be read."""
  try:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
      if image.width > _MAX_IMAGE_WIDTH:
        height = round(image.height * _MAX_IMAGE_WIDTH / image.width)
        small = image.convert("RGB").resize((_MAX_IMAGE_WIDTH, max(height, 1)))
        target = io.BytesIO()
        small.save(target, "JPEG", quality=85)
        data = target.getvalue()
  except OSError:
    return ""
  return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")

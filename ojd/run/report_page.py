"""A page that needs nothing but itself, and how its file is replaced."""

import importlib.resources
import json
import os
import pathlib
from typing import Any

from ojd.run import report_style

# By it a page is known as one that may be written again.
MADE_HERE = '<meta name="generator" content="ojd">'


def page(title: str, body: str, script: str, kind: str) -> str:
  """A whole page.

  Args:
    title: HTML.
    body: HTML.
    script: the name of its script among the assets.
    kind: a class of CSS.
  """
  return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{MADE_HERE}
<title>{title}</title>
<style>{report_style.CSS}</style>
</head>
<body class="{kind}">
{body}
<script>
{asset(script)}</script>
</body>
</html>
"""


def asset(name: str) -> str:
  """A script of this package."""
  file = importlib.resources.files("ojd.run") / "assets" / name
  return file.read_text("utf-8")


def script_json(name: str, content: Any) -> str:
  """JSON as an element of a page; no text in it can end that element."""
  words = json.dumps(content, allow_nan=False, separators=(",", ":"))
  words = words.replace("<", "\\u003c").replace(">", "\\u003e")
  return f'<script type="application/json" id="{name}">{words}</script>\n'


def replace_file(path: pathlib.Path, content: str) -> None:
  """Writes a file in one step: a browser sees the old or the new."""
  beside = path.with_name(path.name + ".part")
  try:
    beside.write_text(content, encoding="utf-8")
    os.replace(beside, path)
  except OSError:
    beside.unlink(missing_ok=True)
    raise

"""The parts of a run's page below its headline.

Each is a piece of HTML, or "" where there is nothing to show.
"""

import base64
import io
import json
import pathlib
from typing import Any, NamedTuple

from PIL import Image

from ojd.run import palette
from ojd.run import report_text as text
from ojd.run.stats import EXCLUDED_STAGES
from ojd.types import MAX_CLASSES

_MAX_IMAGE_WIDTH = 1600  # of a sample frame in the page
_STAGES = {
  "read": "read the stream",
  "predict": "student, other frames",
  "teacher": "teacher, key frames",
  "teacher_failed": "teacher, without an answer",
  "ask": "hand frames to the teacher",
  "learn": "training, key frames",
  "write": "write files",
  "compile": "compile",
  "evaluate": "compare with the reference",
  "eval_teacher": "teacher, for the comparison",
  "eval_teacher_failed": "teacher, without an answer to compare with",
  "teacher_async": "teacher, beside the stream",
  "pretrain": "training before the stream",
}
_TERMS = {
  "key frame": "a frame that the teacher labels and the student trains on.",
  "stride": "how many frames pass from one key frame to the next; it doubles "
  "while the student agrees with the teacher, and halves when it does not.",
  "delay": "frames from the one that the teacher was asked about to the one "
  "before which the student learnt its labels; 0 where the stream waits.",
  "update": "one gradient step of the student.",
  "mIoU": "mean intersection over union: the pixels that two class maps share "
  "over all that either has, averaged over the classes but background; "
  "1 is perfect.",
  "measured speed-up": "against the teacher on every frame, from the times "
  "of this run.",
  "paper-model speed-up": "300 N / (7 (N - n) + 300 n + 30 u) for N frames, "
  "n key frames and u updates: the milliseconds of the JITNet paper's machine; "
  "a method that is no student has other prices, those under Costs.",
}


class Run(NamedTuple):
  """What the files of a workdir say; empty where a file is missing."""

  workdir: pathlib.Path
  config: dict[str, Any]
  summary: dict[str, Any]
  rows: list[dict[str, Any]]  # of metrics.jsonl
  parent_rows: list[dict[str, Any]] = []  # of the run that it is a fork of


def chart(run: Run) -> str:
  """Everything over the frames, once for wide and once for narrow screens."""
  if not run.rows:
    return ""
  # Half a second to import, for which no run waits at its start.
  from ojd.run import report_chart

  threshold = text.mapping(run.config, "flags").get("a_thresh")
  threshold = threshold if text.is_number(threshold) else None
  series, beside = report_chart.read_series(run.rows), None
  if run.parent_rows:
    beside = report_chart.read_series(run.parent_rows)
  charts = (
    f'<div class="{kind}" role="img" aria-label="Chart of the run over its '
    'frames">'
    + report_chart.draw(
      series, width=width, threshold=threshold, prefix=kind, beside=beside
    )
    + "</div>"
    for kind, width in (("wide", 10.5), ("narrow", 4.4))
  )
  dashed = "" if threshold is None else " (dashed: training stops there)"
  return f"""<h2>Over time</h2>
<div class="card">{"".join(charts)}</div>
<p class="soft small">Marks below the curve are key frames. Agreement is the
mIoU with the teacher on a key frame before and after training on it{dashed}.
{"The run that this one is a fork of is grey." if beside else ""}</p>"""


def classes(run: Run) -> str:
  """IoU of each class."""
  per_class = text.mapping(text.mapping(run.summary, "miou"), "per_class")
  if not per_class:
    return ""
  colors = _class_colors(run.config)
  rows = "".join(
    _class_row(name, iou, colors.get(name, "transparent"))
    for name, iou in per_class.items()
  )
  return f"""<section><h2>Classes</h2>
<div class="card"><table><thead><tr><th>class</th><th class="n">IoU</th>
<th></th></tr></thead><tbody>{rows}</tbody></table></div></section>"""


def _class_colors(config):
  names = config.get("class_names")
  if not isinstance(names, list) or not 1 <= len(names) <= MAX_CLASSES:
    return {}
  colors = palette.colors(len(names)).tolist()
  return {
    str(name): f"rgb({r},{g},{b})"
    for name, (r, g, b) in zip(names, colors, strict=True)
  }


def _class_row(name, iou, color):
  bar, value = "", '<span class="soft">not seen</span>'
  if text.is_number(iou):
    value = f"{iou:.3f}"
    width = 100 * min(max(iou, 0), 1)
    bar = f'<i style="width:{width:.1f}%;background:{color}"></i>'
  return (
    f'<tr><th><span class="chip" style="background:{color}"></span>'
    f'{text.escape(name)}</th><td class="n">{value}</td>'
    f'<td class="bar">{bar}</td></tr>'
  )


def times(run: Run) -> str:
  """Where the time went."""
  seconds = {
    name: value
    for name, value in text.mapping(run.summary, "seconds").items()
    if text.is_number(value)
  }
  if not seconds:
    return ""
  known = [name for name in _STAGES if name in seconds]
  names = known + [name for name in seconds if name not in _STAGES]
  total = sum(
    value for name, value in seconds.items() if name not in EXCLUDED_STAGES
  )
  ordered = sorted(names, key=lambda name: name in EXCLUDED_STAGES)
  rows = "".join(_time_row(run, name, seconds[name], total) for name in ordered)
  return f"""<section><h2>Time</h2>
<div class="card"><table><thead><tr><th>stage</th><th class="n">seconds</th>
<th class="n">share</th><th class="n">ms each</th></tr></thead>
<tbody>{rows}</tbody></table></div>
<p class="soft small">Stages without a share are no part of the method; frames
per second and speed-up leave them out.</p></section>"""


def _time_row(run, name, seconds, total):
  is_apart = name in EXCLUDED_STAGES
  share = "" if is_apart else text.percent(seconds / total if total else 0.0)
  count = _occurrences(run, name)
  each = f"{1e3 * seconds / count:.1f}" if count else ""
  return (
    f'<tr class="{"apart" if is_apart else ""}">'
    f"<th>{text.escape(_STAGES.get(name, name))}</th>"
    f'<td class="n">{seconds:.2f}</td><td class="n">{share}</td>'
    f'<td class="n">{each}</td></tr>'
  )


def _occurrences(run, name):
  """How often a stage ran; 0 where nobody counted."""
  whole = {"read": "num_frames", "write": "num_frames",
           "evaluate": "eval_frames"}  # fmt: skip
  if name in whole:
    count = run.summary.get(whole[name])
    return count if text.is_number(count) else 0
  # In a line the teacher's time has one name, whoever waited for it.
  name = "teacher" if name == "teacher_async" else name
  return sum(text.is_number(row.get(f"ms_{name}")) for row in run.rows)


def gallery(run: Run) -> str:
  """The sample frames in order."""
  rows = {row["t"]: row for row in run.rows}
  figures = []
  for path in sorted((run.workdir / "report" / "frames").glob("*.jpg")):
    source = inline_image(path)
    if source:
      figures.append(_figure(path.stem, source, rows))
  if not figures:
    return ""
  return (
    '<h2>Sample frames</h2>\n<p class="soft small">The frame, what is expected '
    "of the student, and what it answered.</p>\n" + "\n".join(figures)
  )


def inline_image(path: pathlib.Path) -> str:
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


def _figure(stem, source, rows):
  t = int(stem) if stem.isdecimal() else None
  label = text.escape(stem) if t is None else f"frame {t}"
  row, words = rows.get(t, {}), [label]
  if row.get("is_key"):
    updates = text.count(row.get("num_updates"), "update")
    words.append(f'<span class="key">key frame</span>, {updates}')
  if text.is_number(row.get("delay")):
    words.append(f"labels {text.count(row['delay'], 'frame')} late")
  if text.is_number(row.get("staleness")):
    words.append(f"on the device {text.count(row['staleness'], 'frame')} later")
  if text.is_number(row.get("eval_miou")):
    words.append(f"mIoU {row['eval_miou']:.3f}")
  if row.get("stride"):
    words.append(f"stride {text.integer(row['stride'])}")
  return (
    f'<figure><div><img src="{source}" alt="{label}" decoding="async"></div>'
    f"<figcaption>{', '.join(words)}</figcaption></figure>"
  )


def command(config: dict[str, Any]) -> str:
  """How to run this again."""
  words = str(config.get("command") or "").split(" ")
  if words == [""]:
    return ""
  spans = " ".join(f"<span>{text.escape(word)}</span>" for word in words)
  return f"<h2>Run it again</h2>\n<pre>{spans}</pre>"


def glossary() -> str:
  """The words, for whoever meets them here first."""
  terms = "".join(
    f"<dt>{x}</dt><dd>{words}</dd>" for x, words in _TERMS.items()
  )
  return f"<h2>Words</h2>\n<dl>{terms}</dl>"


def settings(config: dict[str, Any]) -> str:
  """Flags, stream and versions, folded away."""
  parts = {
    "Flags": text.mapping(config, "flags"),
    "Stream": text.mapping(config, "stream"),
    "Versions": text.mapping(config, "versions"),
  }
  if isinstance(config.get("devices"), list):
    names = ", ".join(str(device) for device in config["devices"])
    parts["Versions"] = {**parts["Versions"], "devices": names}
  tables = "".join(_table(title, part) for title, part in parts.items() if part)
  if not tables:
    return ""
  return f"<details><summary>Configuration</summary>{tables}</details>"


def _table(title, content):
  rows = "".join(
    f"<tr><th>{text.escape(name)}</th>"
    f"<td>{text.escape(_plain(value))}</td></tr>"
    for name, value in content.items()
  )
  return (
    f'<div class="card"><table><thead><tr><th colspan="2">{title}</th></tr>'
    f"</thead><tbody>{rows}</tbody></table></div>"
  )


def _plain(value):
  if value is None:
    return text.UNKNOWN
  return value if isinstance(value, str) else json.dumps(value)

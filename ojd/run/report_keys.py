"""The key frames of a run in pictures: what the student learnt of each."""

from typing import Any

from ojd.run import report_sections as sections
from ojd.run import report_text as text


def section(run: sections.Run) -> str:
  """The pictures of `sinks.KeyPictures` in order; "" where there are none."""
  rows = {row["t"]: row for row in run.rows if row.get("is_key")}
  pictures = []
  for path in sorted((run.workdir / "report" / "keys").glob("*.jpg")):
    row = rows.get(int(path.stem)) if path.stem.isdecimal() else None
    source = sections.inline_image(path) if row else ""
    if source:
      pictures.append((source, row))
  if not pictures:
    return ""
  best = max(_gain(row) for _, row in pictures)
  figures = "".join(
    _figure(source, row, is_best=0 < best == _gain(row))
    for source, row in pictures
  )
  return (
    '<h2>Key frames</h2>\n<p class="soft small">The frame, the teacher\'s '
    "labels, and the student before and after it learnt from them, with its "
    f'mIoU against the teacher.</p>\n<div class="keys">{figures}</div>'
  )


def _gain(row: dict[str, Any]) -> float:
  values = row.get("miou_before"), row.get("miou_after")
  return values[1] - values[0] if all(map(text.is_number, values)) else 0.0


def _figure(source, row, is_best):
  late = text.is_number(row.get("key_t"))
  t = row["key_t"] if late else row["t"]
  before, after = (
    text.fixed(row.get(f"miou_{x}"), 3) for x in ("before", "after")
  )
  words = [
    f'<span class="key">frame {text.integer(t)}</span>',
    f"{before} \u2192 {after}",
    text.count(row.get("num_updates"), "update"),
  ]
  if late:
    words.append(f"learnt at frame {text.integer(row['t'])}")
  if is_best:
    words.append("<b>the greatest gain of these</b>")
  return (
    f'<figure><img src="{source}" alt="Key frame {text.integer(t)}" '
    f'decoding="async"><figcaption>{", ".join(words)}</figcaption></figure>'
  )

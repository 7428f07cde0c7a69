"""Pictures of a run: frame, reference and student side by side, and key frames
before and after learning.

H and W are the size of a panel. The whole picture is a little larger and has
even sides, as H.264 requires.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ojd.formats import palette
from ojd.types import (
  BACKGROUND,
  IGNORE,
  StepInfo,
  check_class_map,
  check_frame,
)

KEY_COLOR = (255, 196, 0)
PAPER, INK, _FAINT = (22, 24, 28), (240, 240, 240), (150, 154, 160)
_KEY_INK = (24, 18, 0)

_OPACITY = 0.55  # of a class color over the frame
_DIM = 0.3  # of the black over the background, so that objects stand out
_HATCH = (0.85, 0.35)  # of the gray stripes where pixels are ignored
_MAX_LEGEND_ROWS = 3
_MAX_KEY_WIDTH = 1600  # of the picture of a key frame
_MAX_SIDE = 4096  # of a painted frame; H.264 levels end there


class Caption(NamedTuple):
  """The numbers and words around the panels."""

  t: int  # index of the frame
  is_key: bool
  num_updates: int  # on this frame
  stride: int  # frames between teacher calls
  miou: float | None  # of the run so far
  reference_title: str  # "truth", or "teacher, 12 frames ago"
  seconds: float  # since the start of the video


class FrameImages(NamedTuple):
  """The pictures of a frame."""

  frame: np.ndarray  # [H, W, 3] uint8
  reference: np.ndarray | None  # [H, W] uint8: truth, or the latest labels
  classes: np.ndarray  # [H, W] uint8, the student's
  caption: Caption


class KeyFrame(NamedTuple):
  """A key frame with the answers before and after learning."""

  t: int  # the frame at which the system learns
  frame_t: int  # the frame that was labeled; t if the stream waits
  frame: np.ndarray  # [H, W, 3] uint8
  labels: np.ndarray  # [H, W] uint8, of the teacher
  before: np.ndarray  # [H, W] uint8, the student's classes before the update
  after: np.ndarray  # [H, W] uint8
  info: StepInfo  # plain numbers


def paint(images: FrameImages, class_names: tuple[str, ...]) -> np.ndarray:
  """`compose`, scaled to a size that players can show; [H', W', 3] uint8."""
  picture = compose(
    images.frame,
    images.reference,
    images.classes,
    class_names=class_names,
    caption=images.caption,
  )
  scale = _MAX_SIDE / max(picture.shape[:2])
  if scale >= 1:
    return picture
  height, width = (max(2, int(x * scale) // 2 * 2) for x in picture.shape[:2])
  return np.asarray(Image.fromarray(picture).resize((width, height)))


class Layout(NamedTuple):
  """The layout of a picture, in pixels."""

  height: int  # of a panel
  width: int
  font_size: int
  border: int  # around everything, colored on key frames
  gap: int  # between panels
  strip: int  # height of a line of text
  legend_rows: tuple[tuple[str, ...], ...]  # class names
  legend_left_out: int  # number of class names that do not fit

  @property
  def lefts(self) -> tuple[int, int, int]:
    step = self.width + self.gap
    return self.border, self.border + step, self.border + 2 * step

  @property
  def top(self) -> int:
    return self.border + self.strip

  @property
  def size(self) -> tuple[int, int]:
    """Width and height of the picture."""
    width = self.lefts[2] + self.width + self.border
    rows = len(self.legend_rows)
    height = self.top + self.height + rows * self.strip + self.border
    return width + width % 2, height + height % 2


def compose(
  frame: np.ndarray,
  reference: np.ndarray | None,
  student: np.ndarray,
  *,
  class_names: tuple[str, ...],
  caption: Caption,
) -> np.ndarray:
  """Paints a frame, its reference and the student's answer side by side.

  Args:
    frame: [H, W, 3] uint8.
    reference: [H, W] uint8, a class map; None if there is none yet.
    student: [H, W] uint8, a class map.
    class_names: C names, background first.
    caption: the numbers and words around the panels.

  Returns:
    [H', W', 3] uint8; H' and W' are even and depend only on H, W and the names.
  """
  check_frame("the frame", frame)
  check_class_map("the student's classes", student, frame)
  if reference is not None:
    check_class_map("the reference", reference, frame)
  names = tuple(class_names)
  layout = _make_layout(*frame.shape[:2], names)
  picture = _template(layout, names, caption.is_key).copy()
  image = Image.fromarray(frame)
  panels = [image, None, paint_classes(image, student, len(names))]
  if reference is not None:
    panels[1] = paint_classes(image, reference, len(names))
  for left, panel in zip(layout.lefts, panels, strict=True):
    if panel is not None:
      picture.paste(panel, (left, layout.top))
  _write_titles(picture, layout, caption, reference is not None)
  return np.asarray(picture)


def paint_classes(
  image: Image.Image, classes: np.ndarray, num_classes: int
) -> Image.Image:
  """Blends class colors over the frame, with an outline around objects."""
  opacity = _opacities()[classes]
  step = max(1, round(min(classes.shape) / 400))
  opacity[_outline(classes, step) & (classes != BACKGROUND)] = 255
  is_ignored = classes == IGNORE
  if is_ignored.any():
    opacity = np.where(is_ignored, _hatch(*classes.shape), opacity)
  colors = Image.fromarray(classes)
  colors.putpalette(palette.table(num_classes))
  mask = Image.fromarray(opacity)
  return Image.composite(colors.convert("RGB"), image, mask)


def _outline(classes, step):
  """True within `step` pixels of a change of class; [H, W] bool."""
  edge = np.zeros(classes.shape, bool)
  across = classes[:, step:] != classes[:, :-step]
  down = classes[step:] != classes[:-step]
  edge[:, step:] |= across
  edge[:, :-step] |= across
  edge[step:] |= down
  edge[:-step] |= down
  return edge


@functools.cache
def _opacities():
  """Opacity by class; [256] uint8."""
  opacity = np.full(IGNORE + 1, round(255 * _OPACITY), np.uint8)
  opacity[BACKGROUND] = round(255 * _DIM)
  return opacity


@functools.lru_cache(8)
def _hatch(height, width):
  """Diagonal stripes of opacity; [H, W] uint8."""
  stripe = max(2, min(height, width) // 64)
  rows, columns = np.ogrid[:height, :width]
  is_stripe = (rows + columns) // stripe % 2 == 0
  strong, weak = (round(255 * opacity) for opacity in _HATCH)
  return np.where(is_stripe, strong, weak).astype(np.uint8)


def font_size(height: int, width: int) -> int:
  """The size of the words around a panel, in pixels."""
  return max(9, round(min(height / 16, width / 24)))


@functools.lru_cache(8)
def _make_layout(height, width, class_names):
  size = font_size(height, width)
  border = max(2, round(size / 4))
  strip = round(1.5 * size)
  room = 3 * width + 2 * border - size // 3
  rows, left_out = _break_rows(class_names, room, size)
  return Layout(height, width, size, border, border, strip, rows, left_out)


def _break_rows(names, room, size):
  """Rows with as many names as fit, and the number of names that do not."""
  rows, used = [[]], 0
  for i, name in enumerate(names):
    width = _legend_width(name, size)
    if used + width > room and rows[-1]:
      if len(rows) == _MAX_LEGEND_ROWS:
        return tuple(map(tuple, rows)), len(names) - i
      rows.append([])
      used = 0
    rows[-1].append(name)
    used += width
  return tuple(map(tuple, rows)), 0


def _legend_width(name, size):
  """The width of a color chip, its name and the space after it."""
  return round(2 * size + get_font(size).getlength(name))


@functools.lru_cache(8)
def _template(layout, class_names, is_key):
  """The part that all frames share; callers copy it and never change it."""
  size, border = layout.size, layout.border
  picture = Image.new("RGB", size, PAPER)
  draw = ImageDraw.Draw(picture)
  for left in layout.lefts:
    right, bottom = left + layout.width, layout.top + layout.height
    draw.rectangle((left, layout.top, right - 1, bottom - 1), (8, 9, 10))
  _draw_legend(draw, layout, len(class_names))
  if is_key:
    edge = (0, 0, size[0] - 1, size[1] - 1)
    draw.rectangle(edge, outline=KEY_COLOR, width=border)
  return picture


def _draw_legend(draw, layout, num_classes):
  colors = iter(palette.colors(num_classes))
  size, font = layout.font_size, get_font(layout.font_size)
  limit = layout.size[0] - layout.border
  for i, row in enumerate(layout.legend_rows):
    left = layout.lefts[0] + size // 3
    middle = layout.top + layout.height + (i + 0.5) * layout.strip
    for name in row:
      chip = (
        left,
        middle - 0.35 * size,
        left + 0.7 * size,
        middle + 0.35 * size,
      )
      draw.rectangle(chip, tuple(next(colors).tolist()), outline=_FAINT)
      text = fit_text((name,), limit - left - size, size)
      draw.text((left + size, middle), text, INK, font, anchor="lm")
      left += _legend_width(name, size)
  if layout.legend_left_out:
    text = fit_text((f"+{layout.legend_left_out}",), limit - left, size)
    draw.text((left, middle), text, _FAINT, font, anchor="lm")


def _write_titles(picture, layout, caption, has_reference):
  """Writes a line above each panel, shortened to what fits."""
  draw = ImageDraw.Draw(picture)
  lefts, size = layout.lefts, layout.font_size
  pad = size // 3
  room = layout.width - pad
  used = 0
  if caption.is_key:
    used = _draw_key_tag(draw, layout, caption) + pad
  texts = (
    fit_text(_frame_titles(caption), room - used, size),
    fit_text(_reference_titles(caption, has_reference), room, size),
    fit_text(_student_titles(caption), room, size),
  )
  middle = layout.border + layout.strip / 2
  font = get_font(size)
  for left, text in zip((lefts[0] + used, *lefts[1:]), texts, strict=True):
    draw.text((left + pad, middle), text, INK, font, anchor="lm")


def _draw_key_tag(draw, layout, caption):
  """Draws the tag of a key frame; returns its width."""
  count, size = caption.num_updates, layout.font_size
  updates = "update" if count == 1 else "updates"
  texts = (f"KEY FRAME, {count} {updates}", f"KEY +{count}", "KEY")
  pad = size // 3
  text = fit_text(texts, layout.width - 2 * pad, size)
  width = 2 * pad + round(get_font(size).getlength(text))
  left, top = layout.lefts[0], layout.border
  box = (left, top, left + width - 1, layout.top - 1)
  draw.rectangle(box, KEY_COLOR)
  middle = (left + pad, top + layout.strip / 2)
  draw.text(middle, text, _KEY_INK, get_font(size), anchor="lm")
  return width


def _frame_titles(caption):
  time = f"{caption.seconds:.2f} s"
  number = f"frame {caption.t}"
  return f"{number}   {time}", number, str(caption.t)


def _reference_titles(caption, has_reference):
  if not has_reference:
    return "no labels yet", "none"
  return caption.reference_title, caption.reference_title.split(",")[0]


def _student_titles(caption):
  stride = f"stride {caption.stride}"
  if caption.miou is None:
    return f"student   {stride}", "student"
  miou = f"mIoU {caption.miou:.3f}"
  return (
    f"student   {miou} so far   {stride}",
    f"student   {miou}   {stride}",
    f"student   {miou}",
    "student",
    f"{caption.miou:.2f}",
  )


def compose_key(key: KeyFrame, num_classes: int) -> Image.Image:
  """Frame, labels, student before and student after, two by two."""
  frame = Image.fromarray(key.frame)
  answers = [
    paint_classes(frame, classes, num_classes)
    for classes in (key.labels, key.before, key.after)
  ]
  picture = tile([frame, *answers], _key_titles(key))
  if picture.width > _MAX_KEY_WIDTH:
    scaled = round(picture.height * _MAX_KEY_WIDTH / picture.width)
    return picture.resize((_MAX_KEY_WIDTH, max(1, scaled)))
  return picture


def tile(
  panels: Sequence[Image.Image], titles: Sequence[tuple[str, ...]]
) -> Image.Image:
  """Arranges four panels of one size two by two, each under its title.

  Args:
    panels: from the upper left to the lower right.
    titles: of each panel, the longest first; the first that fits is used.
  """
  width, height = panels[0].size
  size = font_size(height, width)
  gap, strip = max(2, size // 4), round(1.5 * size)
  whole = (2 * width + 3 * gap, 2 * (strip + height) + 2 * gap)
  picture = Image.new("RGB", whole, PAPER)
  draw, font = ImageDraw.Draw(picture), get_font(size)
  for i, panel in enumerate(panels):
    left = gap + i % 2 * (width + gap)
    top = strip + i // 2 * (height + strip + gap)
    picture.paste(panel, (left, top))
    text = fit_text(titles[i], width - size // 3, size)
    middle = (left + size // 3, top - strip / 2)
    draw.text(middle, text, INK, font, anchor="lm")
  return picture


def _key_titles(key):
  """Titles of each panel, the longest first."""
  info, late = key.info, key.t - key.frame_t
  before, after = f"{info.miou_before:.3f}", f"{info.miou_after:.3f}"
  updates = f"{info.num_updates} update{'' if info.num_updates == 1 else 's'}"
  teacher = f"teacher, {late} frames late" if late else "teacher"
  return (
    (f"frame {key.frame_t}", str(key.frame_t)),
    (teacher, "teacher"),
    (f"student before   {before}", f"before {before}", "before"),
    (f"student after {updates}   {after}", f"after {after}", "after"),
  )


def fit_text(texts: tuple[str, ...], room: float, size: int) -> str:
  """The first text that fits into `room` pixels, or an empty one."""
  font = get_font(size)
  return next((text for text in texts if font.getlength(text) <= room), "")


@functools.cache
def get_font(size: int) -> ImageFont.FreeTypeFont:
  """The font of every picture, with its size in pixels."""
  return ImageFont.load_default(size=size)

"""The stream protocol and the table of addresses."""

import importlib
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from ojd.errors import UserError
from ojd.types import Sample

MIN_SIDE = 32  # five halvings of the student leave one pixel
MAX_SIDE = 8192
_MOST_LISTED, _LONGEST_LISTED = 12, 80  # names in a line, letters of each


class StreamSpec(NamedTuple):
  """What is known of a stream before its first frame."""

  height: int
  width: int
  fps: float
  num_frames: int | None  # None where the end is not known
  class_names: tuple[
    str, ...
  ]  # of the truth, "background" first; empty without truth
  identity: dict[
    str, Any
  ]  # JSON; two streams with equal identity give equal frames
  default_classes: str = ""  # groups of --classes where none are asked for
  # Height and width before resizing; None where they are those above.
  source_size: tuple[int, int] | None = None
  is_live: bool = False  # frames come in real time, and only once


def resized_spec(
  source_size: tuple[int, int],
  height: int | None,
  width: int | None,
  *,
  identity: dict[str, Any],
  **others: Any,
) -> StreamSpec:
  """The spec of a source whose frames may be resized.

  Args:
    source_size: height and width of the source.
    height: of the frames; None keeps that of the source.
    width: likewise.
    identity: of the source, to which its size is added.
    **others: the fields of StreamSpec that remain.
  """
  return StreamSpec(
    height=height or source_size[0],
    width=width or source_size[1],
    identity={**identity, "source_size": list(source_size)},
    source_size=source_size,
    **others,
  )


class Stream(Protocol):
  """Frames in order, from any index on; reading twice gives the same frames."""

  spec: StreamSpec

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples t = start, ...; a broken frame comes as None."""
    ...


def close(stream: Stream) -> None:
  """Closes a live stream; a `read` that waits in any thread ends."""
  if stream.spec.is_live:
    stream.close()


class Address(NamedTuple):
  """`scheme:path?key=value&...`, taken apart."""

  scheme: str
  path: str
  options: dict[str, str]

  def option(self, name: str, kind: type, default: Any) -> Any:
    """The option as `kind`, or the default where it is not named."""
    if name not in self.options:
      return default
    try:
      return kind(self.options[name])
    except ValueError:
      raise UserError(
        f"--stream: {name}={self.options[name]!r} is not {kind.__name__}"
      ) from None

  def expanded(self) -> pathlib.Path:
    """The path, with `~` replaced by the user's home."""
    try:
      return pathlib.Path(self.path).expanduser()
    except RuntimeError:
      raise UserError(
        f"--stream={self.scheme}:{self.path}: no such home"
      ) from None

  def refuse_others(self, *known: str) -> None:
    """Raises on an option that the scheme lacks: a typo must not pass."""
    for name in self.options:
      if name not in known:
        raise UserError(
          f"--stream: {self.scheme}: has no option {name!r}; it has "
          f"{', '.join(known) or 'none'}"
        )


# Schemes of addresses on a network; what follows is theirs, '?' and all.
_SERVERS = ("rtsp", "rtsps", "rtmp", "http", "https", "tcp", "udp")

# scheme -> module with open_stream(address, height, width) -> Stream
SCHEMES = {
  "synthetic": "ojd.streams.synthetic",
  "folder": "ojd.streams.folder",
  "lvs": "ojd.streams.lvs",
  "video": "ojd.streams.video",
  "davis": "ojd.streams.davis",
  "cityscapes": "ojd.streams.cityscapes",
  "images": "ojd.streams.images",
  "concat": "ojd.streams.compose",
  "camera": "ojd.streams.live",
  **dict.fromkeys(_SERVERS, "ojd.streams.live"),
}

# Their paths may hold a '?'.
_WITHOUT_OPTIONS = ("folder", "video", "images", "concat", *_SERVERS)


def listed(words: Sequence[str]) -> str:
  """A dozen of them at most, and how many more there are."""
  more = len(words) - _MOST_LISTED
  text = ", ".join(word[:_LONGEST_LISTED] for word in words[:_MOST_LISTED])
  return f"{text} and {more} more" if more > 0 else text


def without_password(text: str) -> str:
  """A text in which addresses have no user and password."""
  return re.sub(r"(\w+://)[^/\s'\"@]*@", r"\1***@", text)


def parse_address(uri: str) -> Address:
  """Takes `synthetic:street?seed=0` apart; the path of a file is a video's."""
  scheme, colon, rest = uri.partition(":")
  if not colon or scheme not in SCHEMES:
    if os.path.isfile(os.path.expanduser(uri)):
      return Address("video", uri, {})
    known = ", ".join(f"{name}:" for name in SCHEMES)
    raise UserError(
      f"--stream={uri}: no video file and no known kind of stream; known are "
      f"{known}"
    )
  if scheme in _WITHOUT_OPTIONS:
    return Address(scheme, rest, {})
  path, _, query = rest.partition("?")
  try:
    pairs = urllib.parse.parse_qsl(
      query, keep_blank_values=True, strict_parsing=bool(query)
    )
  except ValueError:
    raise UserError(
      f"--stream={uri}: after '?' come key=value pairs joined by '&'"
    ) from None
  return Address(scheme, path, dict(pairs))


def open_stream(
  uri: str, height: int | None = None, width: int | None = None
) -> Stream:
  """Opens the stream behind an address.

  Its frames are resized to height x width; None keeps what the stream has.
  """
  for name, side in (("--height", height), ("--width", width)):
    if side is not None and not MIN_SIDE <= side <= MAX_SIDE:
      raise UserError(
        f"{name}={side}: a side has {MIN_SIDE} to {MAX_SIDE} pixels"
      )
  address = parse_address(uri)
  module = importlib.import_module(SCHEMES[address.scheme])
  stream = module.open_stream(address, height, width)
  if min(stream.spec.height, stream.spec.width) < MIN_SIDE:
    raise UserError(
      f"--stream={without_password(uri)}: frames of "
      f"{stream.spec.height}x{stream.spec.width} pixels are too small; give "
      f"--height and --width of at least {MIN_SIDE}"
    )
  return stream

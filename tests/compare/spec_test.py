"""Words that ask for a comparison, and words that do not."""

import dataclasses
import pathlib

import pytest

from ojd.compare import spec
from ojd.run.config import RunConfig
from tests.reference.refusals import refused


def test_streams_have_names_and_categories(tmp_path):
  entries = spec.parse_streams(
    [
      "folder:/clips/a b@Sports (Fixed),synthetic:street?seed=1&num_frames=9",
      r"davis:/d?seq=camel@,lvs:/l/x?classes=auto=car\,bus,folder:/me\@home",
      # Of the paper: in a category, but for some of the overall average.
      "lvs:/data/dogs2,lvs:/data/hockey1,lvs:/other/dogs2@Pets",
      "folder:/a/x,folder:/b/x,folder:/c/x",
    ]
  )
  assert entries == [
    ("folder:/clips/a b", "a b", "Sports (Fixed)"),
    ("synthetic:street?seed=1&num_frames=9", "street seed=1", ""),
    ("davis:/d?seq=camel", "camel", ""),
    ("lvs:/l/x?classes=auto=car,bus", "x classes=auto=car,bus", ""),
    ("folder:/me@home", "me@home", ""),
    ("lvs:/data/dogs2", "Dog (P,D,A)", "Animals"),
    ("lvs:/data/hockey1", "Hockey (P)", ""),
    ("lvs:/other/dogs2", "Dog (P,D,A) (2)", "Pets"),
    *(("folder:/a/x", "x", ""), ("folder:/b/x", "x (2)", "")),
    ("folder:/c/x", "x (3)", ""),
  ]
  path = tmp_path / "streams.txt"
  path.write_text(
    "# category, name, URI\n\n"
    "Traffic , A street,synthetic:street?seed=1\n"
    ", No category, lvs:/x?classes=auto=car,bus\n"
  )
  assert spec.read_streams_file(path) == [
    ("synthetic:street?seed=1", "A street", "Traffic"),
    ("lvs:/x?classes=auto=car,bus", "No category", ""),
  ]


@pytest.mark.parametrize(
  "content,words",
  (
    (b"Traffic, synthetic:street\n", "line 1 is not category, name, URI"),
    (b"# nothing\n", "names no stream"),
    (b"\xff\xfe\x00", "no list of streams"),
    (b"a, b, nix:c\n", "no known kind of stream"),
    (b"#" * (1 << 20) + b"##", "no list of streams"),
    (None, "No such file"),
  ),
)
def test_wrong_files_are_refused(tmp_path, content, words):
  path = tmp_path / "streams.txt"
  if content is not None:
    path.write_bytes(content)
  with refused(words):
    spec.read_streams_file(path)


def test_wrong_streams_are_refused():
  for text, words in (
    ("", "an empty entry"),
    ("folder:/a,,folder:/b", "an empty entry"),
    ("folder:/a,folder:/a@Sports", "is listed twice"),
    ("nix:a", "no known kind of stream"),
    ("camera:0", "is live"),
    (r"rtsp://me:secret\@host/x", "rtsp://***@host/x is live"),
  ):
    with refused(words):
      spec.parse_streams([text])


def test_systems_have_words_and_typed_options():
  text = r"jit:a_thresh=0.7:u_max=4:init=/a\,b\:c,jit:slow:learning_rate=1e-3"
  first, second = spec.parse_systems(text)
  options = (("a_thresh", 0.7), ("u_max", 4), ("init", "/a,b:c"))
  name = "jit a_thresh=0.7 u_max=4 init=/a,b:c"
  assert first == (name, "jit", "", options)
  assert second[1:] == ("jit", "slow", (("learning_rate", 0.001),))
  assert (first.flag, second.flag) == ("jit", "jit:slow")
  # Those that differ in numbers alone, or in the word, are on one curve.
  assert (first.curve, second.curve) == ("jit init=/a,b:c", "jit")
  assert first.setting == "a_thresh=0.7 u_max=4"
  assert second.setting == "slow learning_rate=0.001"


def test_wrong_systems_are_refused():
  for text, words in (
    ("", "there is no system ''; known are jit, "),
    ("jit,nix:a_thresh=0.7", "there is no system 'nix'; known are jit, "),
    ("jit:thresh=0.7", "no option 'thresh'; known are a_thresh, delta_min"),
    ("jit:seed=7", "no option 'seed'"),
    ("jit:u_max=2.5", "u_max takes a whole number, not '2.5'"),
    ("jit:a_thresh=high", "a_thresh takes a number, not 'high'"),
    ("jit:slow:fast", "one word at most"),
    ("jit:", "one word at most"),
    ("jit:u_max=2:u_max=3", "u_max is listed twice"),
  ):
    with refused(words):
      spec.parse_systems(text)


def test_a_cell_is_the_run_of_its_words():
  base = RunConfig(a_thresh=0.6, teacher="ground_truth", seed=7)
  (stream,) = spec.parse_streams(["synthetic:park"])
  (system,) = spec.parse_systems("jit:a_thresh=0.9:update=adam")
  config = spec.config_of(base, stream, system, 3, pathlib.Path("/x"))
  words = {"stream": "synthetic:park", "system": "jit", "workdir": "/x"}
  words |= {"a_thresh": 0.9, "update": "adam", "seed": 3}
  assert config == dataclasses.replace(base, **words)

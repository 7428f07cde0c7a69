"""Addresses, their options, and what is refused before a stream opens."""

import pytest

from ojd.streams import base
from tests.reference.refusals import refused


@pytest.mark.parametrize(
  ("uri", "address"),
  [
    (
      "synthetic:street?seed=3&cuts=",
      ("synthetic", "street", {"seed": "3", "cuts": ""}),
    ),
    ("synthetic:x?name=a%26b+c", ("synthetic", "x", {"name": "a&b c"})),
    # A folder has no options, so that its path may hold any sign.
    *(
      (f"folder:{path}", ("folder", path, {}))
      for path in ("/a/b", "/a/b?", "/what?x=1", "/a:b/c d=e")
    ),
  ],
)
def test_address_is_taken_apart(uri, address):
  assert base.parse_address(uri) == address


def test_unknown_kind_is_told_the_known_and_options_must_be_pairs():
  for uri in ("", "street", "/a/b", "rstp:x", ":x", "Folder:x"):
    with refused(f"--stream={uri}", *(f"{name}:" for name in base.SCHEMES)):
      base.parse_address(uri)
  for query in ("seed", "seed=1&cuts", "&", "seed=1&&cuts=1"):
    with refused("key=value"):
      base.parse_address(f"synthetic:street?{query}")


def test_option_is_read_as_its_kind_and_by_its_name():
  address = base.parse_address("synthetic:street?seed=3&rate=0.5&name=x&n=")
  assert address.option("seed", int, 0) == 3
  assert address.option("rate", float, 1.0) == 0.5
  assert address.option("name", str, "") == "x"
  assert address.option("cuts", int, 7) == 7
  for name, value in (("n", ""), ("name", "x"), ("rate", "0.5")):
    with refused(f"{name}='{value}' is not int"):
      address.option(name, int, 0)
  # A typo in a name is told the known names.
  address = base.parse_address("synthetic:street?sead=3")
  with refused("'sead'", " seed, cuts"):
    address.refuse_others("seed", "cuts")
  with refused("'sead'", " none"):
    address.refuse_others()
  address.refuse_others("sead", "cuts")


@pytest.mark.parametrize("side", [0, 7, -32, 31, 10**6])
@pytest.mark.parametrize("flag", ["height", "width"])
def test_side_out_of_range_names_its_flag(flag, side):
  with refused(f"--{flag}={side}"):
    base.open_stream("synthetic:street", **{flag: side})


def test_path_of_a_file_is_a_videos(tmp_path):
  path = tmp_path / "a?b:c.mp4"
  path.write_bytes(b"")
  assert base.parse_address(str(path)) == ("video", str(path), {})
  assert base.parse_address(f"video:{path}") == ("video", str(path), {})
  with refused("no video file and no known kind"):
    base.parse_address(str(tmp_path))

"""Addresses, their options, and what is refused before a stream opens."""

import pytest

from ojd.errors import UserError
from ojd.streams import base


def test_address_is_taken_apart():
  address = base.parse_address("synthetic:street?seed=3&cuts=")
  assert address == ("synthetic", "street", {"seed": "3", "cuts": ""})


@pytest.mark.parametrize("path", ["/a/b", "/a/b?", "/what?x=1"])
def test_folder_has_no_options_so_its_path_may_hold_any_sign(path):
  assert base.parse_address(f"folder:{path}") == ("folder", path, {})


def test_path_may_hold_colons_and_spaces():
  address = base.parse_address("folder:/a:b/c d=e")
  assert address == ("folder", "/a:b/c d=e", {})


def test_options_are_decoded():
  address = base.parse_address("synthetic:x?name=a%26b+c")
  assert address.options == {"name": "a&b c"}


@pytest.mark.parametrize(
  "uri", ["", "street", "/a/b", "rstp:x", ":x", "Folder:x"]
)
def test_unknown_kind_is_told_the_known(uri):
  with pytest.raises(UserError) as error:
    base.parse_address(uri)
  assert f"--stream={uri}" in str(error.value)
  for scheme in base.SCHEMES:
    assert f"{scheme}:" in str(error.value)


@pytest.mark.parametrize(
  "query", ["seed", "seed=1&cuts", "&", "seed=1&&cuts=1"]
)
def test_options_must_be_pairs(query):
  with pytest.raises(UserError, match="key=value"):
    base.parse_address(f"synthetic:street?{query}")


def test_option_is_read_as_its_kind():
  address = base.parse_address("synthetic:street?seed=3&rate=0.5&name=x")
  assert address.option("seed", int, 0) == 3
  assert address.option("rate", float, 1.0) == 0.5
  assert address.option("name", str, "") == "x"
  assert address.option("cuts", int, 7) == 7


@pytest.mark.parametrize("value", ["", "x", "1.5"])
def test_option_of_the_wrong_kind_is_refused(value):
  address = base.parse_address(f"synthetic:street?seed={value}")
  with pytest.raises(UserError, match=f"seed='{value}' is not int"):
    address.option("seed", int, 0)


def test_typo_in_an_option_is_refused():
  address = base.parse_address("synthetic:street?sead=3")
  with pytest.raises(UserError, match="'sead'.* seed, cuts"):
    address.refuse_others("seed", "cuts")
  with pytest.raises(UserError, match="'sead'.* none"):
    address.refuse_others()
  base.parse_address("synthetic:street?seed=3").refuse_others("seed", "cuts")


@pytest.mark.parametrize("side", [0, 7, -32, 31, 10**6])
@pytest.mark.parametrize("flag", ["height", "width"])
def test_side_out_of_range_names_its_flag(flag, side):
  with pytest.raises(UserError, match=f"--{flag}={side}"):
    base.open_stream("synthetic:street", **{flag: side})


def test_opened_stream_has_the_size_asked_for():
  spec = base.open_stream("synthetic:street", 32, 48).spec
  assert (spec.height, spec.width) == (32, 48)


def test_path_of_a_file_is_a_videos(tmp_path):
  path = tmp_path / "a?b:c.mp4"
  path.write_bytes(b"")
  assert base.parse_address(str(path)) == ("video", str(path), {})
  assert base.parse_address(f"video:{path}") == ("video", str(path), {})
  with pytest.raises(UserError, match="no video file and no known kind"):
    base.parse_address(str(tmp_path))

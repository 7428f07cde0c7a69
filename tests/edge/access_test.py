"""Where a server may listen, and to whom a device gives its token."""

import pytest

from ojd.edge import access
from ojd.errors import UserError
from tests.reference.refusals import refused


@pytest.mark.parametrize(
  ("args", "words"),
  [
    (("0.0.0.0:0", "", "", ""), "give --tls_cert and --tls_key and --token"),
    (("0.0.0.0:0", "secret", "", ""), "give --tls_cert and --tls_key, or"),
    (("[::]:0", "", "", ""), "listen on 127.0.0.1"),
    (("127.0.0.1", "", "", ""), "--listen=127.0.0.1: as HOST:PORT"),
    (("127.0.0.1:99999", "", "", ""), "as HOST:PORT"),
    (("127.0.0.1:0", "", "cert.pem", ""), "go together"),
    (("127.0.0.1:0", "", "no.pem", "no.pem"), "no such file"),
    (("127.0.0.1:0", "", __file__, __file__), "no certificate with its key"),
    (("http://127.0.0.1:1", "", ""), "as ws://HOST:PORT or wss"),
    (("ws://", "", ""), "as ws://HOST:PORT"),
    (("ws://user:word@127.0.0.1:1", "", ""), "as ws://HOST:PORT"),
    (("ws://127.0.0.1:99999", "", ""), "as ws://HOST:PORT"),
    (("ws://example.com:1", "secret", ""), "would travel unencrypted"),
    (("ws://127.0.0.1:1", "", "ca.pem"), "needs a wss"),
    (("wss://127.0.0.1:1", "", "no.pem"), "no certificates"),
  ],
)
def test_addresses_that_are_refused(args, words):
  make = access.server_access if len(args) == 4 else access.client_dial
  with refused(words) as error:
    make(*args)
  assert "secret" not in str(error.value)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0"])
def test_loopback_needs_neither(address):
  who = access.server_access(address, "", "", "")
  assert who.place.is_loopback and who.lets_pass(None)


@pytest.mark.parametrize(
  ("header", "passes"),
  [
    ("Bearer secret", True),
    ("bearer  secret ", True),
    ("Bearer secre", False),
    ("Bearer secrets", False),
    ("Basic secret", False),
    ("Bearer s\u00e9cret", False),
    ("", False),
    (None, False),
  ],
)
def test_token_is_compared_whole(header, passes):
  who = access.server_access("127.0.0.1:0", "secret", "", "")
  assert who.lets_pass(header) == passes


def test_token_comes_of_a_file_or_the_environment(tmp_path, monkeypatch):
  monkeypatch.delenv(access.TOKEN_VARIABLE, raising=False)
  assert access.read_token("") == ""
  monkeypatch.setenv(access.TOKEN_VARIABLE, "open-sesame")
  assert access.read_token("") == "open-sesame"
  path = tmp_path / "token"
  path.write_text("from-a-file\n")
  assert access.read_token(str(path)) == "from-a-file"
  for content, words in (
    (b"", "no token"),
    (b"a b", "without spaces"),
    (b"\xff", "no text"),
  ):
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
      access.read_token(str(path))
  with pytest.raises(UserError, match="No such file"):
    access.read_token(str(tmp_path / "none"))

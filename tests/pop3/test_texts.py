"""Texts for people: every one is in every language, and status, codes and numbers are left alone."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from pathlib import Path

import pytest
from fakes_pop3 import Host, ask

from mailhost import sasl
from mailhost.pop3 import grammar, listings, replies, texts
from mailhost.pop3.replies import Reply

FOLDER = Path(texts.__file__).parent / "languages"
FILES = sorted(FOLDER.glob("*.toml"))
_STATUS_AND_CODE = re.compile(r"(\+OK |-ERR )(\[[^]]*\] )?")


def english_texts() -> set[str]:
    """All that the code says: its replies, its refusals, and the details of what is wrong with a command."""
    constants = [
        reply.octets
        for reply in vars(replies).values()
        if isinstance(reply, Reply) and reply.octets.startswith((b"+", b"-"))
    ]
    wholes = [octet for octet in vars(replies).values() if isinstance(octet, bytes) and octet.startswith(b"+OK ")]
    lines = [octets.decode().partition("\r\n")[0] for octets in constants + wholes]
    said = {_STATUS_AND_CODE.sub("", line) for line in lines}
    said |= {_STATUS_AND_CODE.sub("", "-ERR " + text.decode()) for text in replies._REFUSALS.values()}
    said |= {text for module in (replies, listings) for text in _beginnings(module)}
    return said | {text for module in (grammar, sasl) for text in _details(module)}


def _beginnings(module: object) -> set[str]:
    """First lines of longer replies, a number in them as `{}`; without those that are numbers alone."""
    found = re.findall(r'b"\+OK ([^"\\]*)\\r\\n', inspect.getsource(module))
    return {text.replace("%d", "{}") for text in found if re.search("[a-z]{3}", text)}


def _details(module: object) -> set[str]:
    return {
        node.args[0].value
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("BadSyntax", "Malformed")
        and isinstance(node.args[0], ast.Constant)
    }


def test_the_texts_were_found() -> None:
    """A little of each kind."""
    assert english_texts() >= {
        "goodbye",
        "{} octets",
        "{} messages",
        "unique-ids follow",
        "not base64",
        "no such message",
        "a number has digits only",
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestCatalogue:
    def test_complete(self, file: Path) -> None:
        """No text is missing, and none is there that nobody says."""
        assert set(tomllib.loads(file.read_text("utf-8"))["texts"]) == english_texts()

    def test_fit_for_a_reply(self, file: Path) -> None:
        """One line, not like a response code, its number kept, and with the longest detail under RFC 2449's 512 octets."""
        for english, text in tomllib.loads(file.read_text("utf-8"))["texts"].items():
            assert text == text.strip()
            assert text.isprintable()
            assert text
            assert not text.startswith("[")
            assert text.count("{}") == english.count("{}")
            assert len(text.encode()) < 200

    def test_its_name(self, file: Path) -> None:
        """A file is named by its tag."""
        assert texts.parse(file.read_text("utf-8")).tag.decode() == file.stem


@pytest.mark.parametrize(
    ("wanted", "tag"),
    [
        (b"en", b"en"),
        (b"EN-us", b"en"),
        (b"de", b"de"),
        (b"de-CH-1996", b"de"),
        (b"zh", b"zh-Hans"),
        (b"zh-hans-CN", b"zh-Hans"),
        (b"ru", b"ru"),
    ],
)
def test_a_language_that_is_there(wanted: bytes, tag: bytes) -> None:
    """A range finds what it matches, or else what its beginning does."""
    language = texts.shipped().find(wanted)
    assert language is not None
    assert language.tag == tag


@pytest.mark.parametrize("wanted", [b"", b"tlh", b"d", b"deu", b"*", b"-", b"-de", b"\xc3\xa4"])
def test_one_that_is_not(wanted: bytes) -> None:
    """Nothing is guessed."""
    assert texts.shipped().find(wanted) is None


GERMAN = texts.Language(b"de", "Deutsch", {"{} octets": "{} Oktette", "syntax": "Syntaxfehler", "a: b": "c"})


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"+OK 12 octets\r\n+OK 12 octets\r\n.\r\n", b"+OK 12 Oktette\r\n+OK 12 octets\r\n.\r\n"),
        (b"-ERR [X] syntax\r\n", b"-ERR [X] Syntaxfehler\r\n"),
        (b"-ERR syntax: and more\r\n", b"-ERR Syntaxfehler: and more\r\n"),
        (b"-ERR syntax: a: b\r\n", b"-ERR Syntaxfehler: c\r\n"),
        (b"+OK 3 219\r\n", b"+OK 3 219\r\n"),
        (b"+OK 1 uid\r\n", b"+OK 1 uid\r\n"),
        (b"+ \r\n", b"+ \r\n"),
        (b"", b""),
    ],
)
def test_said(octets: bytes, said: bytes) -> None:
    """Only the first line's text is in another language."""
    assert GERMAN.said(octets) == said


def test_a_long_reply() -> None:
    """A reply that leaves in pieces begins in the session's language, and its content is untouched, whatever it looks like."""
    body = b"Subject: long\r\n\r\n" + b"+OK 12 octets\r\n" * 30_000
    host = Host([body, b"Subject: small\r\n\r\n-ERR syntax\r\n"])
    transport = host.logged_in()
    ask(transport, b"LANG de\r\n")
    said = ask(transport, b"RETR 1\r\nRETR 2\r\n")
    assert said == b"+OK %d Oktette\r\n%b.\r\n+OK 31 Oktette\r\nSubject: small\r\n\r\n-ERR syntax\r\n.\r\n" % (
        len(body),
        body,
    )


def test_the_operators_language() -> None:
    """`LANG *` means what the factory was told; a session begins in English all the same."""
    host = Host(language=b"fr")
    transport = host.connect()
    assert ask(transport, b"NOOP\r\nLANG *\r\n") == "-ERR not in this state\r\n+OK fr langue changée\r\n".encode()
    with pytest.raises(ValueError, match="no language tlh"):
        Host(language=b"tlh")

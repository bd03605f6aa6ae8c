"""mbox files: where messages begin and end, and how quoting is undone."""

from __future__ import annotations

import mailbox
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailhost.tools import mbox
from mailhost.tools.main import Failed
from mailhost.tools.mbox import read_mbox

FIRST = b"From ann@far.example Sat Jan  3 01:05:34 1998\n"
SECOND = b"From MAILER-DAEMON Sun Jan  4 10:00 1998\n"


def read(path: Path, octets: bytes, kind: str = "auto") -> list[bytes]:
    """Contents of all messages."""
    path.write_bytes(octets)
    return [b"".join(message.blocks()) for message in read_mbox(str(path), kind)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mbox"


@pytest.mark.parametrize(
    ("octets", "contents"),
    [
        (b"", []),
        (b"\n\n", []),
        (FIRST + b"A: 1\n\nbody\n\n", [b"A: 1\n\nbody\n"]),
        (FIRST + b"A: 1\n\nbody\n", [b"A: 1\n\nbody\n"]),
        (FIRST + b"A: 1\n\nbody", [b"A: 1\n\nbody"]),
        (FIRST + b"A: 1\n\nbody\n\n\n\n", [b"A: 1\n\nbody\n\n\n"]),
        (FIRST + b"A: 1\n\none\n\n" + SECOND + b"A: 2\n\ntwo\n\n", [b"A: 1\n\none\n", b"A: 2\n\ntwo\n"]),
        (FIRST + b"A: 1\n\n" + SECOND + b"A: 2\n\n\n", [b"A: 1\n", b"A: 2\n\n"]),
        (FIRST + b"A: 1\r\n\r\none\r\n\r\n" + SECOND + b"A: 2\r\n\r\n", [b"A: 1\r\n\r\none\r\n", b"A: 2\r\n"]),
        # Neither behind a line of text nor without a time does "From " begin a message.
        (FIRST + b"A: 1\n\none\n" + SECOND + b"two\n\n", [b"A: 1\n\none\n" + SECOND + b"two\n"]),
        (FIRST + b"A: 1\n\n\nFrom here on\n\n", [b"A: 1\n\n\nFrom here on\n"]),
    ],
)
def test_where_messages_end(file: Path, octets: bytes, contents: list[bytes]) -> None:
    """At an empty line and a beginning, or at the end of the file; the empty line belongs to nobody."""
    assert read(file, octets) == contents


QUOTED = FIRST + b"A: 1\n\n>From a\n>>From b\n> From c\n>Fromage\n\n"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("auto", b"From a\n>From b\n> From c\n>Fromage\n"),
        ("mboxrd", b"From a\n>From b\n> From c\n>Fromage\n"),
        ("mboxo", b"From a\n>>From b\n> From c\n>Fromage\n"),
        ("mboxcl", b"From a\n>>From b\n> From c\n>Fromage\n"),
        ("mboxcl2", b">From a\n>>From b\n> From c\n>Fromage\n"),
    ],
)
def test_quoting(file: Path, kind: str, body: bytes) -> None:
    """Each kind undoes what its writers did, and nothing else."""
    assert read(file, QUOTED, kind) == [b"A: 1\n\n" + body]


BODY = b"one\n\nFrom x Sat Jan  3 01:05:34 1998\n>From y\n"


def test_content_length(file: Path) -> None:
    """A field that is right decides where the message ends, and nothing in it is taken for quoted."""
    octets = FIRST + b"Content-Length: %d\n\n" % len(BODY) + BODY + b"\n" + SECOND + b"A: 2\n\ntwo\n\n"
    assert read(file, octets) == [b"Content-Length: %d\n\n" % len(BODY) + BODY, b"A: 2\n\ntwo\n"]


@pytest.mark.parametrize("wrong", [0, 3, 10_000])
def test_wrong_content_length(file: Path, wrong: int) -> None:
    """A field that is wrong is as good as none."""
    octets = FIRST + b"Content-Length: %d\n\none\n>From y\n\n" % wrong + SECOND + b"A: 2\n\ntwo\n\n"
    assert read(file, octets)[0].endswith(b"one\nFrom y\n")
    assert len(read(file, octets)) == 2


def test_what_is_known_of_a_message(file: Path) -> None:
    """Sender and date of the beginning, flags of the fields in which mail readers keep them."""
    file.write_bytes(
        FIRST + b"Status: RO\nX-Status: AF\n\nx\n\n" + SECOND + b"Date: Mon, 5 Jan 1998 00:00:00 +0000\n\ny\n"
    )
    one, two = read_mbox(str(file))
    assert (one.reverse_path.mailbox, one.time // 1_000_000, one.flags) == ("ann@far.example", 883789534, "FRS")
    assert (two.reverse_path.mailbox, two.time // 1_000_000, two.flags) == ("", 883908000, "")


def test_unique_ids(file: Path) -> None:
    """The same message has the same, wherever it stands and whatever its flags; two that are alike have two."""
    message = FIRST + b"A: 1\n\nbody\n\n"
    file.write_bytes(message + message)
    first, second = (one.unique_id for one in read_mbox(str(file)))
    assert first != second
    file.write_bytes(SECOND + b"\nx\n\n" + message.replace(b"A: 1", b"Status: RO\nA: 1"))
    assert [one.unique_id for one in read_mbox(str(file))][1] == first
    assert len(first) <= 70


def test_no_mbox(file: Path) -> None:
    """What does not begin with From is refused in one line, and so is what is not there."""
    file.write_bytes(b"Subject: x\n\nbody\n")
    with pytest.raises(Failed, match="no mbox"):
        read_mbox(str(file))
    with pytest.raises(Failed, match="No such file"):
        read_mbox(str(file) + "x")


LINES = st.lists(st.sampled_from([b"", b"From x 10:00", b">From ", b">>From x", b"text", b".", b"From"]), max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=4), st.integers(1, 7))
def test_there_and_back(tmp_path_factory: pytest.TempPathFactory, bodies: list[list[bytes]], step: int) -> None:
    """What is written comes back octet for octet, and the standard library finds as many messages."""
    file = tmp_path_factory.mktemp("mbox") / "mbox"
    contents = [b"".join(line + b"\r\n" for line in [b"Subject: x", b"", *body]) for body in bodies]
    octets = b""
    for content in contents:
        octets += mbox.beginning("ann@far.example", 883789534_000_000)
        quoting = mbox.Quoting()
        octets += b"".join(quoting.feed(content[at : at + step]) for at in range(0, len(content), step)) + quoting.end()
    assert read(file, octets) == [content.replace(b"\r\n", b"\n") for content in contents]
    assert len(mailbox.mbox(str(file), create=False)) == len(contents)


def test_long_content(file: Path) -> None:
    """Quoting is undone across the blocks in which a file is read."""
    body = b">From x\n" * 100_000
    assert read(file, FIRST + b"A: 1\n\n" + body + b"\n") == [b"A: 1\n\n" + b"From x\n" * 100_000]

"""Content between 354 and the end of data, in blocks cut anywhere."""

from __future__ import annotations

import pytest
from fake_delivery import FakeStaged, FakeTransaction, Script
from hypothesis import given, settings
from hypothesis import strategies as st

from mailhost.envelope import NULL_REVERSE_PATH, Client
from mailhost.limits import Limits
from mailhost.refusal import Loop, MessageTooLarge, TookTooLong
from mailhost.smtp.content import BareLineEnd, Content

CLIENT = Client("s1", "192.0.2.7", 40007, "mx", "smtp")


def staged() -> FakeStaged:
    script = Script()
    return FakeStaged(script, FakeTransaction(script, CLIENT, NULL_REVERSE_PATH, {}))


def fed(*blocks: bytes, **limits: int) -> tuple[Content, FakeStaged]:
    to = staged()
    content = Content(to, Limits(**{"message_octets": 1000, **limits}))
    for block in blocks:
        assert content.feed(block) is None
    return content, to


def test_wire_form() -> None:
    """Content is handed on as it came, dots doubled, without the final dot, and counted in the plain form."""
    content, to = fed(b"a\r\n..b\r\n", b".\r\nQUIT\r\n")
    assert to.content == b"a\r\n..b\r\n"
    assert content.octets == len(b"a\r\n.b\r\n")
    assert content.rest == b"QUIT\r\n"
    assert content.refusal is None
    assert to.end == ""


def test_nothing_is_written_for_nothing() -> None:
    """An empty message is empty, and costs no write."""
    content, to = fed(b".\r\n")
    assert (to.content, content.rest, content.octets) == (b"", b"", 0)


def test_limit_is_the_plain_form() -> None:
    """Doubled dots do not count; one octet more than the limit does."""
    content, to = fed(b"..\r\n" * 3 + b".\r\n", message_octets=9)
    assert content.refusal is None
    content, to = fed(b"..\r\n" * 3 + b"\r\n.\r\n", message_octets=9)
    assert isinstance(content.refusal, MessageTooLarge)
    assert to.end == "abort"


@pytest.mark.parametrize("bare", [b"\n", b"\r", b"a\nb", b"\n.\n", b"\r\n.\n", b"\r.\r", b"\r\r\n", b"\r\n.\r."])
def test_bare_line_ends(bare: bytes) -> None:
    """What was staged is let go of as soon as one is seen, nothing is kept any more, and the end is still looked for."""
    content, to = fed(b"first\r\n" + bare + b"x\r\n")
    assert isinstance(content.refusal, BareLineEnd)
    assert to.end == "abort"
    before = to.content
    content.feed(b"second\r\n.\r\nNOOP\r\n")
    assert to.content == before
    assert content.rest == b"NOOP\r\n"


def test_loop() -> None:
    """One Received field too many refuses the message as soon as it is seen; as many as the limit is fine."""
    content, to = fed(b"Received: x\r\n" * 2 + b"\r\n", received=2)
    assert content.refusal is None
    content, to = fed(b"Received: x\r\n" * 3, received=2)
    assert isinstance(content.refusal, Loop)
    assert to.end == "abort"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_loop_in_any_blocks(size: int) -> None:
    """Short messages that come whole are not looked into; nothing can slip through that."""
    for lines, hops, too_many in ((2, 3, True), (50, 3, True), (0, 2, False), (50, 2, False)):
        octets = b"X: y\r\n" * lines + b"received: x\r\n" * hops + b"\r\nReceived: in the body\r\n.\r\n"
        content, _ = fed(*(octets[start : start + size] for start in range(0, len(octets), size)), received=2)
        assert isinstance(content.refusal, Loop) == too_many


def test_first_refusal_stands() -> None:
    """What was wrong first is said; what was staged is let go of once."""
    content, to = fed(b"0123456789\r\n", message_octets=5)
    content.refuse(TookTooLong())
    content.feed(b"bare\nline\r\n.\r\n")
    assert isinstance(content.refusal, MessageTooLarge)
    content.abort()
    assert to.end == "abort"


ALPHABET = st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"\0", b"\r\n.\r\n", b"..", b"xyz"])


def end_of(octets: bytes) -> int:
    """Where the end of data begins, by the book: behind the line end of the DATA command."""
    return (b"\r\n" + octets).find(b"\r\n.\r\n")


@settings(max_examples=200, deadline=None)
@given(st.lists(ALPHABET, max_size=30).map(b"".join), st.lists(st.integers(1, 7), min_size=1, max_size=20))
def test_any_octets_in_any_blocks(octets: bytes, sizes: list[int]) -> None:
    """However content is cut: it ends at CRLF.CRLF and nowhere else, and is kept whole or not at all."""
    sent = octets + b"\r\n.\r\n"
    end = end_of(sent)
    body, rest = sent[:end], sent[end + 3 :]
    to = staged()
    content = Content(to, Limits())
    position = 0
    for size in sizes * len(sent):
        if content.rest is not None or position >= len(sent):
            break
        content.feed(sent[position : position + size])
        position += size
    assert content.rest is not None
    assert content.rest + sent[position:] == rest
    bare = body.replace(b"\r\n", b"")
    if b"\r" in bare or b"\n" in bare:
        assert isinstance(content.refusal, BareLineEnd)
        assert to.end == "abort"
    else:
        assert content.refusal is None
        assert to.content == body

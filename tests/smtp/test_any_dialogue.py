"""Whatever a client says, in whatever blocks: one reply to each command, and everything that was begun ends once."""

from __future__ import annotations

import re

from fake_delivery import Dialogue
from hypothesis import given, settings
from hypothesis import strategies as st

from mailhost.events import Bug, MessageAccepted, SessionEnded

PLAIN = b"AGFubkBleGFtcGxlLnRlc3QAdGFwaW9jYQ=="

# No STARTTLS: what may stand behind it does depend on the blocks.
SAID = st.sampled_from(
    [
        b"EHLO client.example\r\n",
        b"HELO client.example\r\n",
        b"EHLO\r\n",
        b"MAIL FROM:<ann@far.example>\r\n",
        b"MAIL FROM:<ann@far.example> SIZE=999999999999\r\n",
        b"RCPT TO:<bob@example.test>\r\n",
        b"RCPT TO:<nobody@example.test>\r\n",
        b"DATA\r\n",
        b"text\r\n.\r\n",
        b"..dots\r\n.\r\n",
        b"\r\n.\r\n",
        b".\r\n",
        b"large " * 40 + b"\r\n.\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"NOOP " + b"x" * 600 + b"\r\n",
        b"FROB\r\n",
        b"\r\n",
        b"AUTH PLAIN\r\n",
        b"AUTH PLAIN " + PLAIN + b"\r\n",
        b"AUTH LOGIN\r\n",
        PLAIN + b"\r\n",
        b"*\r\n",
        b"QUIT\r\n",
        b"bare\n",
        b"\r",
    ]
)
# A dialogue that goes well as far as it goes, so that what follows meets every state.
BEGUN = [
    b"",
    b"EHLO c\r\n",
    b"EHLO c\r\nMAIL FROM:<>\r\n",
    b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.test>\r\n",
    b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n",
    b"EHLO c\r\nAUTH PLAIN " + PLAIN + b"\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n",
]


def heard(blocks: list[bytes], auth: bool) -> tuple[str, Dialogue]:
    dialogue = Dialogue(auth=auth, plaintext_login=True)
    replies = "".join(dialogue.send(block) for block in blocks)
    replies += dialogue.hear()
    dialogue.transport.lose()
    return replies, dialogue


def cut(octets: bytes, sizes: list[int]) -> list[bytes]:
    blocks, rest = [], octets
    while rest:
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(rest[:size])
        rest = rest[size:]
    return blocks


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(BEGUN),
    st.lists(SAID, max_size=12).map(b"".join),
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.booleans(),
)
def test_any_dialogue(begun: bytes, said: bytes, sizes: list[int], auth: bool) -> None:
    """The blocks make no difference; no bug shows; what was begun is ended once, and what was acknowledged is there."""
    whole, dialogue = heard([begun + said], auth)
    in_blocks, _ = heard(cut(begun + said, sizes), auth)
    assert in_blocks == whole
    script = dialogue.script
    assert not dialogue.happened(Bug)
    assert len(dialogue.happened(SessionEnded)) == 1
    assert script.count("transaction") == script.count("abort") + len(script.messages)
    assert all(message.end for message in script.messages)
    kept = [message.unique_id for message in script.messages if message.end == "commit"]
    assert re.findall(r"250 2.0.0 Message accepted, id (\w+)", whole) == kept
    assert [event.unique_id for event in dialogue.happened(MessageAccepted)] == kept
    assert script.count("log_out") <= script.count("log_in")


LINES = st.sampled_from(
    ["EHLO c", "MAIL FROM:<>", "RCPT TO:<bob@example.test>", "RSET", "NOOP", "FROB", "VRFY x", "MAIL", "RCPT x"]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(LINES, max_size=19))
def test_one_reply_to_each(lines: list[str]) -> None:
    """As many replies as commands, behind the greeting, in one go or one by one."""
    dialogue = Dialogue()
    dialogue.hear()
    one_by_one = [dialogue.say(line) for line in lines]
    for reply in one_by_one:
        assert len(re.findall(r"^\d\d\d ", reply, re.MULTILINE)) == 1
    at_once = Dialogue()
    at_once.hear()
    assert at_once.say(*lines) == "".join(one_by_one)

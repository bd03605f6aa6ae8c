"""
Dialogues as data: one situation per file, readable beside the RFC, played on any protocol's conversation::

    # Relaying is refused until the client logs in.  RFC 5321 3.6.2
    S: 220 *
    C: EHLO client.example
    S: 250 *PIPELINING*
    S-not: *STARTTLS*
    C! b"MAIL FROM:<a@b.example>\\n"
    S: 500 *
    -- closed

`S:` is one reply of SMTP, several lines joined by LF, or one line of POP3; `*`, `?` and `[...]` match as in file names.
`S-not:` says what the reply just seen must not hold.  `C:` is a line, CRLF added; `C!` a bytes literal, sent as it is.
`-- tls` completes the handshake, `-- closed` and `-- open` say whether the server has closed, `-- wait 10` lets seconds pass,
`-- lost` cuts the connection, `-- secret WORD` names what must not appear in any event, `-- with KEY [KEY ...]` goes to the
builder, and a line that begins with `#` is for the reader.

Each file is played in three ways: line by line, octet by octet, and with everything the client says up to the next `--` in one write.
"""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock

from mailhost.testing.transport import FakeTransport

WAYS = ("line by line", "octet by octet", "in one write")


class Stage(NamedTuple):
    """What a builder gives: a conversation not yet connected, its clock, and what it reported."""

    protocol: Protocol
    clock: Clock
    events: list[object]


class Line(NamedTuple):
    number: int
    kind: str
    text: str


class Transcript:
    """One dialogue, as read from a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = list(_lines(path))
        self.settings = frozenset(word for line in self.lines for word in _words_of("with", line))
        self.secrets = [word for line in self.lines for word in _words_of("secret", line)]

    def play(self, build: Callable[[frozenset[str]], Stage], way: str, *, replies: str) -> None:
        """
        @param build: called with the settings; not the same stage for two plays.
        @param way: one of `WAYS`.
        @param replies: `smtp` or `pop3`: what one `S:` is.
        @raise AssertionError: file, line, what was wanted and what was seen.
        """
        stage = build(self.settings)
        _Play(self, stage, way, _SPLITTERS[replies]).run()
        told = repr(stage.events)
        for secret in self.secrets:
            assert secret not in told, f"{self.path.name}: {secret!r} was told to the log"


def find(folder: Path) -> list[Transcript]:
    """All transcripts of a folder."""
    return [Transcript(path) for path in sorted(folder.glob("*.txt"))]


def _lines(path: Path) -> Iterator[Line]:
    for number, text in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not text or text.startswith("#"):
            continue
        found = re.fullmatch(r"(S-not:|S:|C:|C!|--)(?: (.*))?", text)
        if found is None:
            raise ValueError(f"{path}:{number}: no line of a transcript: {text!r}")
        yield Line(number, found[1], found[2] or "")


def _words_of(directive: str, line: Line) -> list[str]:
    words = line.text.split()
    return words[1:] if line.kind == "--" and words[:1] == [directive] else []


def _smtp_reply(octets: bytes) -> tuple[str, bytes] | None:
    """The first whole reply, its lines joined by LF behind one code, and what is left."""
    texts = []
    rest = octets
    while True:
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            return None
        text = line.decode("utf-8", "replace")
        assert re.fullmatch(r"[2-5]\d\d[ -].*|[2-5]\d\d", text), f"no SMTP reply line: {text!r}"
        texts.append(text[4:])
        if text[3:4] != "-":
            return f"{text[:3]} " + "\n".join(texts), rest


def _pop3_line(octets: bytes) -> tuple[str, bytes] | None:
    line, end, rest = octets.partition(b"\r\n")
    return (line.decode("utf-8", "replace"), rest) if end else None


_SPLITTERS = {"smtp": _smtp_reply, "pop3": _pop3_line}


class _Play:
    """One playing of one transcript."""

    def __init__(
        self, transcript: Transcript, stage: Stage, way: str, split: Callable[[bytes], tuple[str, bytes] | None]
    ) -> None:
        self._transcript = transcript
        self._clock = stage.clock
        self._way = way
        self._split = split
        self._transport = FakeTransport(stage.protocol)
        self._heard = b""
        self._last_reply = ""

    def run(self) -> None:
        lines = self._transcript.lines
        if self._way == "in one write":
            lines = self._client_first(lines)
        for line in lines:
            self._play(line)
        self._listen()
        assert not self._heard, f"{self._transcript.path.name}: more was said: {self._heard!r}"

    def _client_first(self, lines: list[Line]) -> list[Line]:
        """Up to each `--` line, all that the client says before all that is expected."""
        out: list[Line] = []
        group: list[Line] = []
        for line in [*lines, Line(0, "--", "")]:
            if line.kind != "--":
                group.append(line)
                continue
            said = b"".join(_octets(said) for said in group if said.kind in ("C:", "C!"))
            if said:
                out.append(Line(group[0].number, "C!", repr(said)))
            out += [heard for heard in group if heard.kind not in ("C:", "C!")]
            out.append(line)
            group = []
        return out

    def _play(self, line: Line) -> None:
        if line.kind in ("C:", "C!"):
            self._say(_octets(line))
        elif line.kind == "S:":
            self._expect(line)
        elif line.kind == "S-not:":
            assert not fnmatch.fnmatchcase(self._last_reply, line.text), self._complaint(line, self._last_reply)
        else:
            self._direct(line)

    def _say(self, octets: bytes) -> None:
        if self._way == "octet by octet":
            for octet in octets:
                self._transport.receive(bytes([octet]))
        else:
            self._transport.receive(octets)
        self._clock.advance(0)

    def _expect(self, line: Line) -> None:
        self._listen()
        found = self._split(self._heard)
        assert found is not None, self._complaint(line, self._heard)
        self._last_reply, self._heard = found
        # The text of `S: 250 *` stands for itself but for the wild cards.
        assert fnmatch.fnmatchcase(self._last_reply, line.text), self._complaint(line, self._last_reply)

    def _listen(self) -> None:
        self._heard += self._transport.take()
        for _ in range(1000):  # what is left of many pipelined commands is taken up in later turns
            before = self._heard
            self._clock.advance(0)
            self._heard += self._transport.take()
            if self._heard == before:
                break

    def _direct(self, line: Line) -> None:
        directive, _, rest = line.text.partition(" ")
        if directive == "tls":
            assert self._transport.tls is not None, self._complaint(line, "no TLS was started")
            self._transport.finish_handshake()
        elif directive == "closed":
            assert self._transport.closing, self._complaint(line, "the connection is open")
        elif directive == "open":
            assert not self._transport.closing, self._complaint(line, "the connection is closed")
        elif directive == "wait":
            self._clock.advance(float(rest))
        elif directive == "lost":
            self._transport.lose()
        elif directive not in ("with", "secret", ""):
            raise ValueError(self._complaint(line, "unknown directive"))

    def _complaint(self, line: Line, seen: object) -> str:
        where = f"{self._transcript.path.name}:{line.number}"
        return f"{where} ({self._way}): wanted {line.kind} {line.text!r}, saw {seen!r}"


def _octets(line: Line) -> bytes:
    if line.kind == "C:":
        return line.text.encode("utf-8") + b"\r\n"
    octets = ast.literal_eval(line.text)
    assert isinstance(octets, bytes)
    return octets

"""
mbox files of every kind, read and written.

A message begins with a line `From <sender> <date>` behind an empty line, and ends with an empty line.  How its own lines that begin with
"From " are told from that differs:

    mboxo    >From for From; what began with >From already is not told from it
    mboxrd   one > more before From, >From, >>From ...: can be undone exactly; this is what is written here
    mboxcl   as mboxo, with a Content-Length field
    mboxcl2  nothing is quoted; Content-Length says where the message ends

The standard library's `mailbox` knows neither Content-Length nor how to undo quoting, and takes every line with "From " for a beginning.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import mktime_tz, parsedate_tz
from functools import partial
from typing import BinaryIO, NamedTuple

from mailhost.envelope import NULL_REVERSE_PATH, Path
from mailhost.spool.log.inspection import Progress, unwatched
from mailhost.tools.main import Failed
from mailhost.tools.sources import BLOCK_OCTETS, Incoming

# A beginning has a time in it: a line of text that only starts with "From " has none.
_BEGINNING = re.compile(rb"From .*\d\d?:\d\d")
_QUOTED = {"mboxo": re.compile(rb"^>(?=From )", re.M), "mboxrd": re.compile(rb"^>(?=>*From )", re.M)}
_FROM = re.compile(rb"^(?=>*From )", re.M)
_LENGTH = re.compile(rb"content-length:\s*(\d{1,15})\s*$", re.I)
_STATUS = re.compile(rb"x?-?status:\s*([A-Z]+)", re.I)
# What Status and X-Status fields say, in the letters of a Maildir.
_LETTERS = {"R": "S", "A": "R", "F": "F", "D": "T", "T": "D"}


class Span(NamedTuple):
    """One message in the file."""

    beginning: bytes
    start: int
    end: int
    digest: str
    flags: str
    date: bytes
    by_length: bool
    """Content-Length says where it ends, and is right."""


def read_mbox(path: str, kind: str = "auto", progress: Progress = unwatched) -> list[Incoming]:
    """
    All messages, in the file's order.

    @param kind: `mboxo` to `mboxcl2`; `auto` takes one with right Content-Length fields for mboxcl2, others for mboxrd.
    @raise Failed: it is no mbox, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            octets, modified = os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_mtime
            spans = []
            for span in _Reader(file, kind).spans():
                spans.append(span)
                progress(span.end, octets)
    except OSError as error:
        raise Failed(f"{error.filename}: {error.strerror}") from None
    alike: Counter[str] = Counter()
    messages = []
    for number, span in enumerate(spans):
        alike[span.digest] += 1
        unique_id = f"{span.digest}-{alike[span.digest]}"
        messages.append(_incoming(path, kind, span, unique_id, _time(span, modified) + number))
    return messages


def _incoming(path: str, kind: str, span: Span, unique_id: str, time: int) -> Incoming:
    quoting = _QUOTED.get("mboxo" if kind == "mboxcl" else "mboxrd" if kind == "auto" else kind)
    if kind == "auto" and span.by_length:
        quoting = None
    blocks = partial(_content, path, span, quoting)
    return Incoming(unique_id, time, span.end - span.start, blocks, span.flags, _sender(span.beginning))


class _Header:
    """What a header section says that matters here."""

    def __init__(self) -> None:
        self.length: int | None = None
        self.flags: set[str] = set()
        self.date = b""
        self.end = 0
        """Before the empty line."""


class _Reader:
    """One pass over a file."""

    def __init__(self, file: BinaryIO, kind: str) -> None:
        self._file = file
        self._lengths = kind in ("auto", "mboxcl", "mboxcl2")

    def spans(self) -> Iterator[Span]:
        line = self._file.readline()
        while line.strip() == b"" and line:
            line = self._file.readline()
        if line and not line.startswith(b"From "):
            raise Failed(f"{self._file.name}: no mbox: its first line does not begin with From")
        while line:
            span, line = self._message(line)
            yield span

    def _message(self, beginning: bytes) -> tuple[Span, bytes]:
        """@return: the message, and the line that begins the next; empty at the end of the file."""
        start = self._file.tell()
        digest = hashlib.sha256(beginning.rstrip())
        header = self._header(digest)
        end = None if header.length is None else self._end_by_length(header.length)
        by_length = end is not None
        if end is None:
            end, following = self._end_by_line(header.end, digest)
        else:
            self._hash_to(end, digest)
            following = self._line_behind()
        flags = "".join(sorted(header.flags))
        return Span(beginning, start, end, digest.hexdigest()[:40], flags, header.date, by_length), following

    def _header(self, digest: hashlib._Hash) -> _Header:
        """Fields that mail readers change in place are no part of what a message is known by."""
        header = _Header()
        header.end = self._file.tell()
        while (line := self._file.readline()).strip():
            header.end = self._file.tell()
            if self._lengths and (match := _LENGTH.match(line)):
                header.length = int(match[1])
            elif match := _STATUS.match(line):
                header.flags |= {_LETTERS[letter] for letter in match[1].decode() if letter in _LETTERS}
            else:
                digest.update(line)
            if line[:5].lower() == b"date:":
                header.date = line[5:].strip()
        return header

    def _end_by_length(self, length: int) -> int | None:
        """Where the content ends, if a message ends there indeed."""
        here = self._file.tell()
        self._file.seek(here + length)
        behind = self._file.read(16)
        at_end = here + length <= os.fstat(self._file.fileno()).st_size
        self._file.seek(here)
        if at_end and (not behind.strip() or behind.lstrip(b"\r\n").startswith(b"From ")):
            return here + length
        return None

    def _hash_to(self, end: int, digest: hashlib._Hash) -> None:
        while (left := end - self._file.tell()) > 0:
            digest.update(self._file.read(min(left, BLOCK_OCTETS)))

    def _line_behind(self) -> bytes:
        line = self._file.readline()
        while line and not line.strip():
            line = self._file.readline()
        return line

    def _end_by_line(self, header_end: int, digest: hashlib._Hash) -> tuple[int, bytes]:
        """
        @return: where the content ends, without the empty line behind it, and the next beginning.
        """
        # The empty line behind a header section is the one behind the message when nothing follows.
        empty, end, at = True, header_end, self._file.tell()
        for line in iter(self._file.readline, b""):
            if empty and _BEGINNING.match(line):
                return end, line
            digest.update(line)
            empty = line in (b"\n", b"\r\n")
            end = at if empty else at + len(line)
            at += len(line)
        return end, b""


def _content(path: str, span: Span, quoting: re.Pattern[bytes] | None) -> Iterator[bytes]:
    with open(path, "rb") as file:
        file.seek(span.start)
        left = span.end - span.start
        while left > 0:
            block = file.read(min(left, BLOCK_OCTETS))
            if len(block) < left:
                block += file.readline(left - len(block))  # quoting is looked for in whole lines
            if not block:
                return
            left -= len(block)
            yield quoting.sub(b"", block) if quoting is not None else block


def _time(span: Span, modified: float) -> int:
    """In microseconds: of the beginning, or the Date field, or the file."""
    for text in (span.beginning.partition(b" ")[2].partition(b" ")[2], span.date):
        parsed = parsedate_tz(text.decode("ascii", "replace").strip())
        if parsed is not None:
            try:
                return int(mktime_tz(parsed)) * 1_000_000
            except (ValueError, OverflowError):
                continue
    return int(modified) * 1_000_000


def _sender(beginning: bytes) -> Path:
    sender = beginning.split(b" ")[1].decode("utf-8", "replace").strip()
    local_part, _, domain = sender.rpartition("@")
    return Path(local_part, domain) if local_part and domain else NULL_REVERSE_PATH


# ------------------------------------------------------------------------------------------------------------- writing


def beginning(sender: str, microseconds: int) -> bytes:
    """@param sender: a mailbox, or nothing."""
    date = time.asctime(time.gmtime(microseconds / 1_000_000))
    return f"From {sender.replace(' ', '-') or 'MAILER-DAEMON'} {date}\n".encode()


class Quoting:
    """Plain form to what stands in an mboxrd file: LF line ends, and one > more where it must be."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, block: bytes) -> bytes:
        block = self._rest + block
        end = block.rfind(b"\n") + 1
        self._rest = block[end:]
        return _FROM.sub(b">", block[:end].replace(b"\r\n", b"\n"))

    def end(self) -> bytes:
        """The last line, and the empty one behind it."""
        rest = self._rest + b"\n" if self._rest else b""
        return _FROM.sub(b">", rest) + b"\n"

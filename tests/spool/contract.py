"""
What every spool must do: the tests of `ISpool`, as mixins for trial's `TestCase`.

A test module for one spool takes all of them:

    class MemorySpoolTests(SpoolContract, TestCase):
        def make_spool(self):
            return MemorySpool(reactor=reactor)

Nothing here knows how a spool keeps anything.  Sizes are counted anew, by the slow and plain way, line by line.
"""

from __future__ import annotations

import hashlib
import re
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Copy, Envelope, Path
from mailhost.interfaces import IContent, IMaildrop, ISpool, IStagedMessage
from mailhost.refusal import (
    MaildropInUse,
    MaildropLost,
    NoSuchMaildrop,
    NoSuchMessage,
    Refusal,
    SpoolUnavailable,
    TemporaryRefusal,
)

ANN = "ann@example.test"
BOB = "bob@example.test"

CLIENT = Client("s1", "192.0.2.1", 40000, "mx", "smtp")
ENVELOPE = Envelope(CLIENT, NULL_REVERSE_PATH, NO_PARAMETERS, (Path("ann", "example.test"),))

MESSAGE = b"Subject: dots\r\nX: y\r\n\r\n..\r\n...two\r\nplain . dot\r\n\r\n.. end\r\n"

ODD_CONTENTS = {
    "empty": b"",
    "one empty line": b"\r\n",
    "a body and no header": b"\r\nbody\r\n",
    "a header and no end of it": b"Subject: x\r\nX: y\r\n",
    "a header and an empty body": b"Subject: x\r\n\r\n",
    "two empty lines": b"\r\n\r\n",
    "a dot at the very start": b"..\r\n",
    "lines of dots": b"A: b\r\n\r\n" + b"..\r\n" * 50 + b"....\r\n",
    "a dot behind the header": b"A: b\r\n\r\n..\r\n",
    "every octet but CR and LF": b"A: b\r\n\r\n" + bytes(set(range(256)) - {10, 13}) + b"\r\n",
    "a long line": b"A: b\r\n\r\n" + b"x" * 100_000 + b"\r\n",
    "what looks like the end": b"A: b\r\n\r\n..\r\n\r\n..\r\n..\r\n",
}

# A spool may treat what is larger than this in another way.
LARGE = 1 << 20


def in_background(awaitable: Any) -> Deferred[Any]:
    """Begin it now, to be awaited or cancelled later."""
    return awaitable if isinstance(awaitable, Deferred) else Deferred.fromCoroutine(awaitable)


def let_go(deferred: Deferred[Any]) -> None:
    """Cancel it, as for a client that went away; what it says to that is nobody's concern."""
    deferred.addErrback(lambda failure: failure.trap(CancelledError, TemporaryRefusal))
    deferred.cancel()


def plain_octets(wire: bytes) -> int:
    """What RFC 1939 counts of content in wire form: each line without the dot that was put before it."""
    return sum(len(line[1:]) if line.startswith(b".") else len(line) for line in wire.splitlines(keepends=True))


def header_octets(wire: bytes) -> int:
    """The header section with the empty line behind it: all of it while there is none."""
    if wire.startswith(b"\r\n"):
        return 2
    before, empty_line, _ = wire.partition(b"\r\n\r\n")
    return len(before) + len(empty_line)


def large_content(octets: int) -> bytes:
    """So many octets in wire form, no two blocks of which are the same, with a dotted line here and there."""
    lines = []
    made = 0
    while made < octets:
        line = b"..%09d" % len(lines) + b"-" * 990 + b"\r\n"
        lines.append(line[: octets - made - 2] + b"\r\n" if made + len(line) + 2 > octets else line)
        made += len(lines[-1])
    return b"Subject: large\r\n\r\n" + b"".join(lines)[18:]


def blocks(octets: bytes, size: int) -> list[bytes]:
    return [octets[start : start + size] for start in range(0, len(octets), size)]


async def write_all(staged: IStagedMessage, content: bytes, size: int = 65536) -> None:
    """As a session writes: in blocks, and no next one before there is room."""
    for block in blocks(content, size):
        room = staged.write(block)
        if room is not None:
            await room


async def read_all(content: IContent, size: int = 65536) -> bytes:
    parts = []
    offset = 0
    while part := await content.read(offset, size):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


class SpoolTestCase:
    """What a spool's tests are made of.  Mixed in before `twisted.trial.unittest.TestCase`."""

    timeout = 60

    def make_spool(self) -> ISpool:
        """A new and empty spool, not started."""
        raise NotImplementedError

    def same_spool(self, spool: ISpool) -> ISpool:
        """A spool, not started, over what a stopped one has kept: the same object, where nothing outlives it."""
        return spool

    async def setUp(self) -> None:
        self.spool = self.make_spool()
        await self.spool.start()
        self.addCleanup(self._stop)

    def _stop(self) -> Any:
        return in_background(self.spool.stop())

    async def restart(self) -> None:
        await self.spool.stop()
        self.spool = self.same_spool(self.spool)
        await self.spool.start()

    async def staged(self, content: bytes = MESSAGE, *copies: Copy) -> IStagedMessage:
        staged = await self.spool.stage(ENVELOPE, copies or (Copy(ANN, b""),))
        await write_all(staged, content)
        return staged

    async def deliver(self, content: bytes = MESSAGE, *copies: Copy) -> str:
        """@return: the unique-id."""
        staged = await self.staged(content, *copies)
        return (await staged.commit()).unique_id

    async def opened(self, name: str = ANN, wait_seconds: float = 0) -> IMaildrop:
        maildrop = await self.spool.open_maildrop(name, wait_seconds)
        self.addCleanup(maildrop.release)
        return maildrop

    async def contents(self, name: str = ANN) -> list[bytes]:
        """All that is in a maildrop, which nobody holds."""
        maildrop = await self.spool.open_maildrop(name, 0)
        try:
            numbers = range(1, maildrop.totals.messages + 1)
            return [await read_all(await maildrop.content(number)) for number in numbers]
        finally:
            maildrop.release()

    async def unique_ids(self, name: str = ANN) -> list[str]:
        maildrop = await self.spool.open_maildrop(name, 0)
        try:
            return list((await maildrop.listing()).unique_ids)
        finally:
            maildrop.release()

    async def assert_raises(self, refusal: type[Exception], awaitable: Any) -> None:
        """What is awaited is refused so: `assertRaises`, for coroutines and Deferreds alike."""
        try:
            result = await awaitable
        except refusal:
            return
        self.fail(f"{result!r} returned, {refusal.__name__} expected")

    async def names(self) -> set[str]:
        return {name async for name in self.spool.maildrops()}


class DeliveryContract(SpoolTestCase):
    """`stage`, `write`, `commit`, `abort`."""

    async def test_interfaces(self) -> None:
        """All that a spool hands out provides what it says."""
        verifyObject(ISpool, self.spool)
        staged = await self.staged()
        verifyObject(IStagedMessage, staged)
        await staged.commit()
        maildrop = await self.opened()
        verifyObject(IMaildrop, maildrop)
        verifyObject(IContent, await maildrop.content(1))

    async def test_every_split(self) -> None:
        """Wherever content is cut into two blocks, what comes out and every size is the same."""
        for cut in range(len(MESSAGE) + 1):
            staged = await self.spool.stage(ENVELOPE, (Copy(ANN, b""),))
            staged.write(MESSAGE[:cut])
            staged.write(MESSAGE[cut:])
            await staged.commit()
        await self._assert_all_are_the_message(len(MESSAGE) + 1)

    async def test_octet_by_octet(self) -> None:
        """Content may come in blocks of one octet, and in empty ones."""
        staged = await self.spool.stage(ENVELOPE, (Copy(ANN, b""),))
        for octet in blocks(MESSAGE, 1):
            staged.write(octet)
            staged.write(b"")
        await staged.commit()
        await self._assert_all_are_the_message(1)

    async def _assert_all_are_the_message(self, messages: int) -> None:
        maildrop = await self.opened()
        assert maildrop.totals == (messages, messages * plain_octets(MESSAGE))
        assert list((await maildrop.listing()).octets) == [plain_octets(MESSAGE)] * messages
        for number in range(1, messages + 1):
            content = await maildrop.content(number)
            assert await read_all(content) == MESSAGE
            assert content.header_octets == header_octets(MESSAGE)

    async def test_abort(self) -> None:
        """What was aborted is nowhere, and what comes after it is right."""
        (await self.staged(b"Subject: no\r\n\r\n")).abort()
        (await self.spool.stage(ENVELOPE, (Copy(ANN, b""),))).abort()
        await self.deliver()
        assert await self.contents() == [MESSAGE]

    async def test_nothing_is_visible_before_commit(self) -> None:
        """A staged message is in no listing."""
        staged = await self.staged()
        assert await self.contents() == []
        await staged.commit()
        assert await self.contents() == [MESSAGE]

    async def test_many_maildrops(self) -> None:
        """One commit puts one content into every maildrop it was staged for, under one unique-id."""
        names = [f"user{number}@example.test" for number in range(30)]
        unique_id = await self.deliver(MESSAGE, *(Copy(name, b"") for name in names))
        for name in names:
            assert await self.contents(name) == [MESSAGE]
            assert await self.unique_ids(name) == [unique_id]

    async def test_a_thousand_maildrops(self) -> None:
        """As many as one transaction may have recipients."""
        names = [f"user{number}@example.test" for number in range(1000)]
        unique_id = await self.deliver(MESSAGE, *(Copy(name, b"X: %d\r\n" % len(name)) for name in names))
        assert await self.names() == set(names)
        for name in names[0], names[499], names[-1]:
            assert await self.unique_ids(name) == [unique_id]
            assert await self.contents(name) == [b"X: %d\r\n" % len(name) + MESSAGE]

    async def test_two_copies_for_one_maildrop(self) -> None:
        """Two forward-paths that lead to one maildrop make one copy: the first."""
        copies = Copy(ANN, b"Delivered-To: ann\r\n"), Copy(BOB, b""), Copy(ANN, b"Delivered-To: info\r\n")
        await self.deliver(MESSAGE, *copies)
        assert await self.contents(ANN) == [b"Delivered-To: ann\r\n" + MESSAGE]
        assert await self.contents(BOB) == [MESSAGE]

    async def test_fields(self) -> None:
        """Each maildrop's own header fields come first in its copy, and count in its sizes."""
        own = {ANN: b"Return-Path: <>\r\nDelivered-To: ann@example.test\r\n", BOB: b"Delivered-To: bob\r\n"}
        await self.deliver(MESSAGE, *(Copy(name, fields) for name, fields in own.items()))
        for name, fields in own.items():
            maildrop = await self.opened(name)
            content = await maildrop.content(1)
            octets = len(fields) + plain_octets(MESSAGE)
            assert await read_all(content) == fields + MESSAGE
            assert (content.octets, content.wire_octets) == (octets, len(fields + MESSAGE))
            assert content.header_octets == len(fields) + header_octets(MESSAGE)
            assert maildrop.totals == (1, octets)
            assert list((await maildrop.listing()).octets) == [octets]

    async def test_at_once(self) -> None:
        """Messages committed at the same moment are all there, each once and whole."""
        contents = [b"Subject: %d\r\n\r\n..\r\n" % number for number in range(50)]
        staged = [await self.staged(content, Copy(ANN, b""), Copy(BOB, b"")) for content in contents]
        outcomes = await gatherResults([in_background(message.commit()) for message in staged])
        for name in ANN, BOB:
            assert sorted(await self.contents(name)) == sorted(contents)
            assert sorted(await self.unique_ids(name)) == sorted(outcome.unique_id for outcome in outcomes)

    async def test_interleaved(self) -> None:
        """Messages that arrive at the same time do not mix."""
        one, two = [await self.spool.stage(ENVELOPE, (Copy(ANN, b""),)) for _ in range(2)]
        for octet in blocks(MESSAGE, 1):
            one.write(octet)
            two.write(octet.upper())
        await two.commit()
        await one.commit()
        assert sorted(await self.contents()) == sorted([MESSAGE, MESSAGE.upper()])

    async def test_cancelled_stage(self) -> None:
        """A client that goes away before its message was begun leaves nothing."""
        let_go(in_background(self.spool.stage(ENVELOPE, (Copy(ANN, b""),))))
        await self.deliver()
        assert await self.contents() == [MESSAGE]

    async def test_cancelled_commit(self) -> None:
        """Letting go of a commit's answer leaves the message whole or nowhere, and hinders nobody."""
        cancelled = in_background((await self.staged(b"Subject: let go\r\n\r\n")).commit())
        let_go(cancelled)
        await self.deliver()
        found = await self.contents()
        assert [content for content in found if content != b"Subject: let go\r\n\r\n"] == [MESSAGE]
        assert len(found) <= 2
        await self.restart()
        assert await self.contents() == found


class UniqueIdContract(SpoolTestCase):
    """Unique-ids (RFC 1939 7) and the order of messages."""

    async def test_one_name_for_one_message(self) -> None:
        """A message's unique-id is known when it is staged, and is the one in the outcome and in every listing."""
        staged = await self.staged()
        outcome = await staged.commit()
        assert outcome.unique_id == staged.unique_id
        assert await self.unique_ids() == [staged.unique_id]
        assert await self.unique_ids() == [staged.unique_id]
        assert re.fullmatch(r"[!-~]{1,70}", staged.unique_id)

    async def test_never_used_again(self) -> None:
        """No unique-id comes twice: not after an abort, a deletion, a removal or a restart."""
        seen = []
        for _ in range(3):
            aborted = await self.staged()
            seen.append(aborted.unique_id)
            aborted.abort()
            seen += [await self.deliver() for _ in range(20)]
            maildrop = await self.opened()
            await maildrop.update(range(1, maildrop.totals.messages + 1))
            maildrop.release()
            await self.spool.remove(ANN)
            await self.restart()
        assert len(set(seen)) == len(seen)

    async def test_order(self) -> None:
        """Messages are numbered in the order of their commits, also after a restart."""
        unique_ids = [await self.deliver(b"Subject: %d\r\n\r\n" % number) for number in range(20)]
        assert await self.unique_ids() == unique_ids
        await self.restart()
        assert await self.unique_ids() == unique_ids
        assert await self.contents() == [b"Subject: %d\r\n\r\n" % number for number in range(20)]

    async def test_order_stays(self) -> None:
        """Numbers of messages that were committed together are the same in every later session."""
        staged = [await self.staged() for _ in range(20)]
        await gatherResults([in_background(message.commit()) for message in reversed(staged)])
        unique_ids = await self.unique_ids()
        assert await self.unique_ids() == unique_ids
        await self.restart()
        assert await self.unique_ids() == unique_ids


class ContentContract(SpoolTestCase):
    """`IContent`: sizes and reading."""

    async def test_odd_contents(self) -> None:
        """Whatever a message looks like, it comes out as it went in and every size is right."""
        for content in ODD_CONTENTS.values():
            await self.deliver(content)
        maildrop = await self.opened()
        sizes = [plain_octets(content) for content in ODD_CONTENTS.values()]
        assert list((await maildrop.listing()).octets) == sizes
        assert maildrop.totals == (len(sizes), sum(sizes))
        for number, (what, wire) in enumerate(ODD_CONTENTS.items(), 1):
            content = await maildrop.content(number)
            assert await read_all(content) == wire, what
            assert content.octets == plain_octets(wire), what
            assert content.wire_octets == len(wire), what
            assert content.header_octets == header_octets(wire), what

    async def test_every_offset(self) -> None:
        """Reading gives exactly what was asked for from any offset, less only at the end, nothing behind it."""
        fields = b"Delivered-To: ann\r\n"
        await self.deliver(MESSAGE, Copy(ANN, fields))
        content = await (await self.opened()).content(1)
        whole = fields + MESSAGE
        for offset in range(len(whole) + 2):
            for count in 0, 1, 2, 7, len(whole) - offset, len(whole) + 1:
                if count >= 0:
                    assert await content.read(offset, count) == whole[offset : offset + count], (offset, count)

    async def test_two_readers(self) -> None:
        """Two contents of one maildrop can be read in turns."""
        await self.deliver(MESSAGE)
        await self.deliver(MESSAGE.upper())
        maildrop = await self.opened()
        one, two = await maildrop.content(1), await maildrop.content(2)
        for offset in range(0, len(MESSAGE), 5):
            assert await one.read(offset, 5) == MESSAGE[offset : offset + 5]
            assert await two.read(offset, 5) == MESSAGE.upper()[offset : offset + 5]

    async def test_reads_at_once(self) -> None:
        """Reads that are begun together each get their own part."""
        whole = large_content(600_000)
        await self.deliver(whole)
        content = await (await self.opened()).content(1)
        starts = range(0, len(whole), 100_000)
        parts = await gatherResults([in_background(content.read(start, 100_000)) for start in starts])
        assert b"".join(parts) == whole

    async def test_no_such_message(self) -> None:
        """Only numbers from 1 to the snapshot's last exist."""
        await self.deliver()
        maildrop = await self.opened()
        await self.deliver()
        for number in 0, -1, 2, 10**12:
            await self.assert_raises(NoSuchMessage, maildrop.content(number))


class LargeContract(SpoolTestCase):
    """Content that should not be held in memory."""

    async def _assert_comes_back(self, wire: bytes, number: int = 1, name: str = ANN) -> None:
        maildrop = await self.opened(name)
        content = await maildrop.content(number)
        assert (content.octets, content.wire_octets) == (plain_octets(wire), len(wire))
        assert content.header_octets == header_octets(wire)
        came_back = await read_all(content, 256 * 1024)
        assert hashlib.sha256(came_back).digest() == hashlib.sha256(wire).digest()
        maildrop.release()

    async def test_around_the_threshold(self) -> None:
        """Content just under, at and just over the size of a large message is kept the same way."""
        sizes = [LARGE - 1, LARGE, LARGE + 1, LARGE + 65536]
        for size in sizes:
            await self.deliver(large_content(size))
        for number, size in enumerate(sizes, 1):
            await self._assert_comes_back(large_content(size), number)

    async def test_in_one_block(self) -> None:
        """A large message may come in one block, or in one behind a small one."""
        wire = large_content(3 * LARGE)
        for cut in 0, 10:
            staged = await self.spool.stage(ENVELOPE, (Copy(ANN, b""),))
            staged.write(wire[:cut])
            staged.write(wire[cut:])
            await staged.commit()
        await self._assert_comes_back(wire, 1)
        await self._assert_comes_back(wire, 2)

    async def test_many_maildrops(self) -> None:
        """A large message to several maildrops, among small ones, is whole in each, also after a restart."""
        wire = large_content(2 * LARGE)
        await self.deliver(MESSAGE)
        staged = await self.staged(wire, Copy(ANN, b""), Copy(BOB, b""))
        await self.deliver(MESSAGE, Copy(BOB, b""))
        await staged.commit()
        await self.deliver(MESSAGE)
        for _ in range(2):
            for name in ANN, BOB:
                sizes = sorted(len(content) for content in await self.contents(name))
                assert sizes[-1] == len(wire)
                await self._assert_comes_back(wire, 1 + (await self._sizes(name)).index(plain_octets(wire)), name)
            await self.restart()

    async def _sizes(self, name: str) -> list[int]:
        maildrop = await self.opened(name)
        sizes = list((await maildrop.listing()).octets)
        maildrop.release()
        return sizes

    async def test_abort(self) -> None:
        """A large message that is aborted half way leaves nothing, and the next one is right."""
        wire = large_content(3 * LARGE)
        (await self.staged(wire[: 2 * LARGE])).abort()
        assert await self.contents() == []
        await self.deliver(wire)
        await self._assert_comes_back(wire)

    async def test_deleted(self) -> None:
        """A large message can be deleted, and stays so."""
        await self.deliver(large_content(2 * LARGE))
        await self.deliver(MESSAGE)
        maildrop = await self.opened()
        await maildrop.update([1])
        maildrop.release()
        assert await self.contents() == [MESSAGE]
        await self.restart()
        assert await self.contents() == [MESSAGE]

    async def test_several_at_once(self) -> None:
        """Large messages that arrive block by block in turns do not mix."""
        wires = [large_content(2 * LARGE + extra) for extra in (0, 1000, 2000)]
        staged = [await self.spool.stage(ENVELOPE, (Copy(ANN, b""),)) for _ in wires]
        await gatherResults([in_background(write_all(*pair, 50_000)) for pair in zip(staged, wires)])
        await gatherResults([in_background(message.commit()) for message in staged])
        came_back = await self.contents()
        assert sorted(map(len, came_back)) == sorted(map(len, wires))
        assert set(came_back) == set(wires)

    async def test_thirty_megabytes(self) -> None:
        """A message of 30 MB goes in and out in bounded blocks."""
        wire = large_content(30_000_000)
        await self.deliver(wire)
        await self._assert_comes_back(wire)


class BoundedMemoryContract(SpoolTestCase):
    """For spools that keep large messages elsewhere than in memory."""

    async def test_memory_is_bounded(self) -> None:
        """While messages of 20 MB come in and go out, never more than a few blocks of each are held."""
        block = large_content(LARGE // 4)
        staged = [await self.spool.stage(ENVELOPE, (Copy(ANN, b""),)) for _ in range(2)]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        await gatherResults([in_background(self._write_blocks(message, block, 80)) for message in staged])
        await gatherResults([in_background(message.commit()) for message in staged])
        maildrop = await self.opened()
        for number in 1, 2:
            content = await maildrop.content(number)
            for offset in range(0, content.wire_octets, len(block)):
                assert await content.read(offset, len(block)) == block
        assert tracemalloc.get_traced_memory()[1] < 10 * LARGE

    async def _write_blocks(self, staged: IStagedMessage, block: bytes, count: int) -> None:
        for _ in range(count):
            # A new object each time, as from a transport.
            room = staged.write(bytes(bytearray(block)))
            if room is not None:
                await room


class SessionContract(SpoolTestCase):
    """`IMaildrop`: a snapshot, held exclusively."""

    async def test_empty(self) -> None:
        """A maildrop that never got anything opens empty."""
        maildrop = await self.opened()
        assert maildrop.totals == (0, 0)
        listing = await maildrop.listing()
        assert (list(listing.octets), list(listing.unique_ids)) == ([], [])
        await maildrop.update(())

    async def test_snapshot(self) -> None:
        """Mail that arrives during a session appears in the next one, whenever the listing is asked for."""
        first = await self.deliver(MESSAGE)
        maildrop = await self.opened()
        second = await self.deliver(MESSAGE.upper())
        assert maildrop.totals == (1, plain_octets(MESSAGE))
        assert list((await maildrop.listing()).unique_ids) == [first]
        assert await read_all(await maildrop.content(1)) == MESSAGE
        await self.assert_raises(NoSuchMessage, maildrop.content(2))
        maildrop.release()
        assert await self.unique_ids() == [first, second]

    async def test_update(self) -> None:
        """Exactly the marked messages go, at the update and not before; the others keep unique-id and content."""
        contents = [b"Subject: %d\r\n\r\n" % number for number in range(6)]
        unique_ids = [await self.deliver(content) for content in contents]
        maildrop = await self.opened()
        await maildrop.update({1, 4, 6})
        maildrop.release()
        assert await self.unique_ids() == [unique_ids[index] for index in (1, 2, 4)]
        assert await self.contents() == [contents[index] for index in (1, 2, 4)]
        assert (await self.opened()).totals == (3, 3 * len(contents[0]))

    async def test_update_spares_what_came_meanwhile(self) -> None:
        """A message delivered during the session survives the deletion of all that the session saw."""
        await self.deliver(MESSAGE)
        maildrop = await self.opened()
        await self.deliver(MESSAGE.upper())
        await maildrop.update([1])
        maildrop.release()
        assert await self.contents() == [MESSAGE.upper()]

    async def test_snapshot_after_update(self) -> None:
        """To the end of the session every number means what it meant, also after messages were removed."""
        contents = [b"Subject: %d\r\n\r\n" % number for number in range(3)]
        for content in contents:
            await self.deliver(content)
        maildrop = await self.opened()
        begun = await maildrop.content(1)
        await maildrop.update([1, 2])
        assert await read_all(begun) == contents[0]
        assert await read_all(await maildrop.content(3)) == contents[2]
        assert maildrop.totals.messages == 3

    async def test_many_messages(self) -> None:
        """A maildrop of 3,000 messages, delivered hundreds at a time, of which most are deleted at once."""
        for _ in range(10):
            staged = [await self.staged() for _ in range(300)]
            await gatherResults([in_background(message.commit()) for message in staged])
        maildrop = await self.opened()
        listing = await maildrop.listing()
        assert len(set(listing.unique_ids)) == len(listing.octets) == maildrop.totals.messages == 3000
        kept = {1, 1500, 3000}
        await maildrop.update([number for number in range(1, 3001) if number not in kept])
        maildrop.release()
        for _ in range(2):
            assert await self.unique_ids() == [listing.unique_ids[number - 1] for number in sorted(kept)]
            assert await self.contents() == [MESSAGE] * 3
            await self.restart()

    async def test_update_in_one_maildrop(self) -> None:
        """What one maildrop deletes stays in the others that got the same message."""
        await self.deliver(MESSAGE, Copy(ANN, b""), Copy(BOB, b""))
        maildrop = await self.opened(ANN)
        await maildrop.update([1])
        maildrop.release()
        assert await self.contents(ANN) == []
        assert await self.contents(BOB) == [MESSAGE]

    async def test_update_of_none(self) -> None:
        """An update with nothing marked changes nothing."""
        await self.deliver()
        maildrop = await self.opened()
        await maildrop.update(frozenset())
        maildrop.release()
        assert await self.contents() == [MESSAGE]

    async def test_update_all_or_nothing(self) -> None:
        """An update that names a message that is not there is refused, and removes none of the others."""
        await self.deliver()
        await self.deliver()
        for wrong in 0, 3:
            maildrop = await self.opened()
            await self.assert_raises(Refusal, maildrop.update([1, wrong, 2]))
            maildrop.release()
        assert await self.contents() == [MESSAGE, MESSAGE]

    async def test_update_after_release(self) -> None:
        """Who has let go of a maildrop cannot delete from it."""
        await self.deliver()
        maildrop = await self.opened()
        maildrop.release()
        await self.assert_raises(Refusal, maildrop.update([1]))
        assert await self.contents() == [MESSAGE]

    async def test_deleted_for_good(self) -> None:
        """What was deleted does not come back with a restart, and totals stay right."""
        for _ in range(10):
            await self.deliver()
        maildrop = await self.opened()
        await maildrop.update(range(1, 10))
        maildrop.release()
        await self.restart()
        assert (await self.opened()).totals == (1, plain_octets(MESSAGE))

    async def test_collected_while_delivered(self) -> None:
        """Sessions that collect and delete while mail comes in see each message once, and counts stay right."""
        contents = [b"Subject: %d\r\n\r\n..\r\n" % number + b"x" * number + b"\r\n" for number in range(200)]
        deliveries = [in_background(self._deliver_all(contents[start::4])) for start in range(4)]
        collected: list[bytes] = []
        while len(collected) < len(contents):
            maildrop = await self.opened()
            found = [await read_all(await maildrop.content(1 + index)) for index in range(maildrop.totals.messages)]
            assert maildrop.totals.octets == sum(plain_octets(content) for content in found)
            # Every other one now, the rest in a later session.
            deleted = range(1, len(found) + 1, 2)
            await maildrop.update(deleted)
            maildrop.release()
            collected += [found[number - 1] for number in deleted]
            await deferLater(reactor, 0)
        await gatherResults(deliveries)
        assert sorted(collected) == sorted(contents)
        assert (await self.opened()).totals == (0, 0)

    async def _deliver_all(self, contents: Sequence[bytes]) -> None:
        for content in contents:
            await self.deliver(content)
            await deferLater(reactor, 0)

    async def test_cancelled_reading(self) -> None:
        """Letting go of a listing, a content or a read hinders nothing that comes after."""
        await self.deliver()
        maildrop = await self.opened()
        let_go(in_background(maildrop.listing()))
        let_go(in_background(maildrop.content(1)))
        content = await maildrop.content(1)
        let_go(in_background(content.read(0, 10)))
        assert await read_all(content) == MESSAGE
        assert list((await maildrop.listing()).octets) == [plain_octets(MESSAGE)]
        await maildrop.update([1])
        maildrop.release()
        assert await self.contents() == []

    async def test_release_removes_nothing(self) -> None:
        """A session that ends without an update removes nothing."""
        await self.deliver()
        (await self.opened()).release()
        assert await self.contents() == [MESSAGE]

    async def test_cancelled_update(self) -> None:
        """Letting go of an update's answer removes all or none; who deletes the same messages then does not count them twice."""
        for _ in range(3):
            await self.deliver()
        maildrop = await self.opened()
        update = in_background(maildrop.update([1, 2]))
        let_go(update)
        maildrop.release()
        again = await self.opened(ANN, 10)
        left = again.totals.messages
        assert left in (1, 3)
        await again.update(range(1, left))
        again.release()
        for _ in range(2):
            assert await self.contents() == [MESSAGE]
            assert (await self.opened()).totals == (1, plain_octets(MESSAGE))
            await self.restart()


class ExclusiveContract(SpoolTestCase):
    """One session per maildrop (RFC 1939 4)."""

    async def test_exclusive(self) -> None:
        """A second opening is refused while the first is held, and only for that maildrop."""
        await self.opened(ANN)
        await self.assert_raises(MaildropInUse, self.spool.open_maildrop(ANN, 0))
        await self.opened(BOB)

    async def test_delivery_goes_on(self) -> None:
        """A maildrop that is open still gets mail."""
        maildrop = await self.opened()
        await self.deliver()
        maildrop.release()
        assert await self.contents() == [MESSAGE]

    async def test_release(self) -> None:
        """Once released it can be opened at once, by one."""
        (await self.opened()).release()
        await self.opened()
        await self.assert_raises(MaildropInUse, self.spool.open_maildrop(ANN, 0))

    async def test_release_twice(self) -> None:
        """A second release does not take the maildrop from whoever has it by then."""
        first = await self.opened()
        first.release()
        await self.opened()
        first.release()
        await self.assert_raises(MaildropInUse, self.spool.open_maildrop(ANN, 0))

    async def test_waiting(self) -> None:
        """An opening that waits succeeds as soon as the holder lets go, and sees what was changed until then."""
        await self.deliver()
        first = await self.opened()
        waiting = in_background(self.spool.open_maildrop(ANN, 30))
        await deferLater(reactor, 0.02)
        assert not waiting.called
        await first.update([1])
        await self.deliver(MESSAGE.upper())
        first.release()
        second = await waiting
        self.addCleanup(second.release)
        assert await read_all(await second.content(1)) == MESSAGE.upper()
        assert second.totals.messages == 1

    async def test_waiting_in_vain(self) -> None:
        """An opening that has waited long enough is refused, and leaves nothing behind."""
        first = await self.opened()
        await self.assert_raises(MaildropInUse, self.spool.open_maildrop(ANN, 0.05))
        first.release()
        await self.opened()

    async def test_asked_to_let_go(self) -> None:
        """A holder is asked when another has waited nearly in vain, and keeps the maildrop until it lets go by itself."""
        first = await self.opened()
        asked: list[bool] = []
        first.when_wanted(lambda: asked.append(True))
        await self.assert_raises(MaildropInUse, self.spool.open_maildrop(ANN, 0))
        assert not asked
        await self.assert_raises(MaildropInUse, self.spool.open_maildrop(ANN, 0.05))
        assert asked
        first.when_wanted(first.release)
        second = await self.opened(ANN, 0.5)
        await self.assert_raises(MaildropInUse, self.spool.open_maildrop(ANN, 0.05))
        second.release()

    async def test_notes(self) -> None:
        """What one holder leaves the next one finds, of this maildrop only, and whoever has let go leaves nothing."""
        first = await self.opened()
        assert await first.notes() == b""
        for notes in (b"x" * 10_000, b"", b"short \0 \xff"):
            await first.keep_notes(notes)
            assert await first.notes() == notes
        first.release()
        await self.assert_raises(MaildropLost, first.keep_notes(b"late"))
        assert await (await self.opened()).notes() == b"short \0 \xff"
        assert await (await self.opened(BOB)).notes() == b""

    async def test_times(self) -> None:
        """Each message's is when it was delivered."""
        before = time.time_ns() // 1000
        for _ in range(3):
            await self.deliver()
        maildrop = await self.opened()
        times = list(await maildrop.times())
        assert times == sorted(times)
        assert len(times) == 3
        # The clock of unique-ids runs ahead by some microseconds when many are made at once.
        assert before <= times[0] <= times[-1] <= time.time_ns() // 1000 + 1_000_000

    async def test_two_wait(self) -> None:
        """Of several that wait each gets the maildrop, one after another."""
        first = await self.opened()
        waiting = [in_background(self.spool.open_maildrop(ANN, 30)) for _ in range(3)]
        for _ in range(3):
            first.release()
            while not any(opening.called for opening in waiting):
                await deferLater(reactor, 0.005)
            assert [opening.called for opening in waiting].count(True) == 1
            (granted,) = [opening for opening in waiting if opening.called]
            waiting.remove(granted)
            first = await granted
        first.release()

    async def test_cancelled_waiting(self) -> None:
        """A client that goes away while it waits does not get the maildrop later."""
        first = await self.opened()
        waiting = in_background(self.spool.open_maildrop(ANN, 30))
        await deferLater(reactor, 0.02)
        let_go(waiting)
        first.release()
        await self.opened(ANN, 5)

    async def test_cancelled_opening(self) -> None:
        """An opening that was let go of before it was answered holds nothing."""
        opening = in_background(self.spool.open_maildrop(ANN, 0))
        opening.addCallback(lambda maildrop: maildrop.release())
        let_go(opening)
        await self.opened(ANN, 5)


class TotalsContract(SpoolTestCase):
    """`totals`, by which quotas are kept."""

    async def assert_totals(self, *contents: bytes, name: str = ANN) -> None:
        assert await self.spool.totals(name) == (len(contents), sum(map(plain_octets, contents)))

    async def test_nothing(self) -> None:
        """A name that nobody has holds nothing, and asking makes no maildrop of it."""
        await self.assert_totals()
        assert await self.names() == set()

    async def test_what_was_delivered(self) -> None:
        """Each maildrop's own, its own fields counted, dots as they are in plain form; the same after a restart."""
        fields = b"Delivered-To: bob\r\n"
        await self.deliver(MESSAGE, Copy(ANN, b""), Copy(BOB, fields))
        await self.deliver(MESSAGE)
        for _ in range(2):
            for name in (ANN, BOB):
                (await self.opened(name)).release()  # an opening waits until all is counted
            await self.assert_totals(MESSAGE, MESSAGE)
            await self.assert_totals(fields + MESSAGE, name=BOB)
            await self.restart()

    async def test_while_a_session_has_it(self) -> None:
        """A session's snapshot stands still; what is held now does not, and what the session removes goes at once."""
        await self.deliver()
        maildrop = await self.opened()
        await self.deliver(b"Subject: more\r\n\r\n")
        await self.assert_totals(MESSAGE, b"Subject: more\r\n\r\n")
        await maildrop.update([1])
        maildrop.release()
        await self.opened()
        await self.assert_totals(b"Subject: more\r\n\r\n")

    async def test_removed_and_renamed(self) -> None:
        """What a maildrop holds goes with it to its new name, and is gone when it is removed."""
        await self.deliver()
        await self.spool.rename(ANN, BOB)
        await self.assert_totals(name=ANN)
        await self.assert_totals(MESSAGE, name=BOB)
        await self.spool.remove(BOB)
        await self.assert_totals(name=BOB)

    async def test_not_running(self) -> None:
        """A spool that is stopped can tell nothing."""
        await self.spool.stop()
        await self.assert_raises(SpoolUnavailable, self.spool.totals(ANN))


class CatalogueContract(SpoolTestCase):
    """Names of maildrops: `create`, `exists`, `rename`, `remove`, `maildrops`."""

    async def test_they_appear(self) -> None:
        """A maildrop exists once something was delivered to it, it was opened, or it was made."""
        assert await self.names() == set()
        assert not await self.spool.exists(ANN)
        await self.deliver(MESSAGE, Copy("delivered", b""))
        await self.opened("opened")
        await self.spool.create("made")
        for name in "delivered", "opened", "made":
            assert await self.spool.exists(name)
        assert await self.names() == {"delivered", "opened", "made"}
        await self.restart()
        assert await self.names() == {"delivered", "opened", "made"}

    async def test_create_again(self) -> None:
        """Making a maildrop that exists leaves it as it is."""
        await self.deliver()
        await self.spool.create(ANN)
        assert await self.contents() == [MESSAGE]

    async def test_first_deliveries_at_once(self) -> None:
        """Several first messages for one new name make one maildrop."""
        openings = [in_background(self.deliver()) for _ in range(10)]
        await gatherResults([*openings, in_background(self.spool.create(ANN))])
        assert await self.contents() == [MESSAGE] * 10
        assert await self.names() == {ANN}

    async def test_any_text_is_a_name(self) -> None:
        """Names are taken as they are: none leads out of the spool, none means another."""
        names = ["Ann", "ann", "a/b", "../up", "..", "new\nline", "with space", "\u00fc@\u4f8b.test", "x" * 400, "%2e"]
        for name in names:
            await self.deliver(name.encode() + b"\r\n", Copy(name, b""))
        await self.restart()
        assert await self.names() == set(names)
        for name in names:
            assert await self.contents(name) == [name.encode() + b"\r\n"]

    async def test_rename(self) -> None:
        """A renamed maildrop keeps its mail and unique-ids; a new one of its old name has none of it."""
        unique_id = await self.deliver()
        await self.spool.rename(ANN, BOB)
        assert not await self.spool.exists(ANN)
        await self.deliver(MESSAGE.upper())
        for _ in range(2):
            assert await self.contents(ANN) == [MESSAGE.upper()]
            assert await self.contents(BOB) == [MESSAGE]
            assert await self.unique_ids(BOB) == [unique_id]
            await self.restart()

    async def test_rename_refused(self) -> None:
        """A name nobody has cannot be renamed, none can be renamed to one that is taken, nor one that is open."""
        await self.deliver()
        await self.spool.create(BOB)
        await self.assert_raises(NoSuchMaildrop, self.spool.rename("nobody", "new"))
        await self.assert_raises(MaildropInUse, self.spool.rename(ANN, BOB))
        await self.opened(ANN)
        await self.assert_raises(MaildropInUse, self.spool.rename(ANN, "new"))
        assert await self.names() == {ANN, BOB}

    async def test_remove(self) -> None:
        """A removed maildrop is gone; a new one of its name inherits nothing, also after a restart."""
        await self.deliver(MESSAGE, Copy(ANN, b""), Copy(BOB, b""))
        await self.spool.remove(ANN)
        assert not await self.spool.exists(ANN)
        assert await self.names() == {BOB}
        await self.restart()
        assert await self.names() == {BOB}
        assert await self.contents(ANN) == []
        unique_id = await self.deliver(MESSAGE.upper())
        await self.restart()
        assert await self.unique_ids(ANN) == [unique_id]
        assert await self.contents(BOB) == [MESSAGE]

    async def test_removed_while_a_message_is_on_its_way(self) -> None:
        """A message begun for one user never reaches the next one of that name, and is not acknowledged."""
        await self.spool.create(ANN)
        staged = await self.staged()
        await self.spool.remove(ANN)
        await self.spool.create(ANN)
        await self.assert_raises(TemporaryRefusal, staged.commit())
        assert await self.contents(ANN) == []

    async def test_renamed_while_a_message_is_on_its_way(self) -> None:
        """A message begun for one user is in the renamed maildrop or refused; never with the next user of the name."""
        await self.spool.create(ANN)
        staged = await self.staged()
        await self.spool.rename(ANN, BOB)
        await self.spool.create(ANN)
        try:
            await staged.commit()
            expected = [MESSAGE]
        except TemporaryRefusal:
            expected = []
        assert await self.contents(ANN) == []
        assert await self.contents(BOB) == expected

    async def test_removed_while_open(self) -> None:
        """A session whose maildrop is removed cannot touch a new one of that name, if removal is not refused at all."""
        await self.deliver()
        maildrop = await self.opened()
        try:
            await self.spool.remove(ANN)
        except MaildropInUse:
            await maildrop.update([1])
            return
        await self.deliver(MESSAGE.upper())
        await self.assert_raises(Refusal, maildrop.update([1]))
        maildrop.release()
        assert await self.contents(ANN) == [MESSAGE.upper()]

    async def test_first_opening_refused_while_open(self) -> None:
        """A maildrop that appeared by being opened is exclusive like any other."""
        await self.opened("new")
        await self.assert_raises(MaildropInUse, self.spool.open_maildrop("new", 0))


class LifeContract(SpoolTestCase):
    """`start` and `stop`."""

    async def test_not_started(self) -> None:
        """A spool that was not started refuses, for a while."""
        spool = self.make_spool()
        await self.assert_raises(SpoolUnavailable, spool.stage(ENVELOPE, (Copy(ANN, b""),)))
        await self.assert_raises(SpoolUnavailable, spool.open_maildrop(ANN, 0))

    async def test_stopped(self) -> None:
        """A stopped spool refuses, also what was begun before."""
        staged = await self.staged()
        await self.spool.stop()
        await self.assert_raises(SpoolUnavailable, staged.commit())
        await self.assert_raises(SpoolUnavailable, self.spool.stage(ENVELOPE, (Copy(ANN, b""),)))
        await self.assert_raises(SpoolUnavailable, self.spool.open_maildrop(ANN, 0))
        self.spool = self.same_spool(self.spool)
        await self.spool.start()
        assert await self.contents() == []

    async def test_stop_commits_what_waits(self) -> None:
        """A commit that was asked for before the stop is done, not refused."""
        staged = [await self.staged() for _ in range(5)]
        commits = [in_background(message.commit()) for message in staged]
        await self.spool.stop()
        await gatherResults(commits)
        self.spool = self.same_spool(self.spool)
        await self.spool.start()
        assert await self.contents() == [MESSAGE] * 5

    async def test_stop_ends_sessions(self) -> None:
        """After a stop no maildrop is open; a session from before cannot delete from it or take it away."""
        await self.deliver()
        before = await self.opened()
        await self.restart()
        await self.assert_raises(Refusal, before.update([1]))
        now = await self.opened()
        before.release()
        await self.assert_raises(MaildropInUse, self.spool.open_maildrop(ANN, 0))
        assert now.totals.messages == 1

    async def test_stop_while_one_waits(self) -> None:
        """Who waits for a maildrop when the spool stops is refused then, and does not wait on."""
        await self.opened()
        waiting = in_background(self.spool.open_maildrop(ANN, 50)).addTimeout(5, reactor)
        await deferLater(reactor, 0.02)
        await self.spool.stop()
        await self.assert_raises(TemporaryRefusal, waiting)

    async def test_restart(self) -> None:
        """Everything is as it was after a restart, three times over."""
        for number in range(3):
            await self.deliver(b"Subject: %d\r\n\r\n..\r\n" % number, Copy(ANN, b"X: a\r\n"), Copy(BOB, b"X: b\r\n"))
            unique_ids, found = await self.unique_ids(), await self.contents()
            await self.restart()
            assert await self.unique_ids() == unique_ids
            assert await self.contents() == found
            assert len(await self.contents(BOB)) == number + 1

    async def test_start_and_stop_twice(self) -> None:
        """A second stop does nothing, and the spool can be started again."""
        await self.deliver()
        await self.spool.stop()
        await self.spool.stop()
        await self.spool.start()
        assert await self.contents() == [MESSAGE]


class SpoolContract(
    DeliveryContract,
    UniqueIdContract,
    ContentContract,
    LargeContract,
    SessionContract,
    ExclusiveContract,
    TotalsContract,
    CatalogueContract,
    LifeContract,
):
    """All of it."""

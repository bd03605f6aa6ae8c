"""`mailhost spool`: what state a spool is in, and how it is put right."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import TestCase

from mailhost.events import Trouble
from mailhost.spool.files import Files
from mailhost.spool.log import inspection, repair
from mailhost.spool.log.findings import Report
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.records import HEADER_OCTETS
from mailhost.spool.log.scan import Scan
from mailhost.spool.log.segments import find_secret
from mailhost.spool.log.verify import verify
from tests.spool.log.using import ANN, BOB, LogSpoolTestCase, contents, delete, deliver, subjects
from tests.tools.conftest import PROGRAM, messages
from tests.tools.conftest import deliver as send

Command = Callable[..., Any]

SEGMENT_OCTETS = 20_000
"""Small, so that there are several."""


@contextmanager
def index_of(directory: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(os.path.join(directory, "index.sqlite3"), isolation_level=None)) as connection:
        yield connection


def flip(path: str, offset: int) -> None:
    """One bit of a file."""
    with open(path, "r+b") as file:
        file.seek(offset)
        octet = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([octet ^ 1]))


def append(path: str, octets: bytes) -> None:
    with open(path, "ab") as file:
        file.write(octets)


def octets_of(path: str) -> bytes:
    return Path(path).read_bytes()


def records_of(path: str) -> list[tuple[int, int, int, dict[str, Any]]]:
    """(offset, end, kind, metadata) of each."""
    files = Files()
    fd = files.open(path)
    try:
        scan = Scan(files, fd, find_secret(files, fd), HEADER_OCTETS, files.size(fd))
        return [(found.record.offset, found.record.end, found.record.kind, found.metadata) for found in scan]
    finally:
        files.close(fd)


def segment_files(directory: str) -> list[str]:
    folder = os.path.join(directory, "segments")
    return sorted(os.path.join(folder, name) for name in os.listdir(folder))


class SpoolToolTestCase(LogSpoolTestCase):
    async def filled(self, messages: int = 60) -> str:
        """A stopped spool: two maildrops, several segments, deletions, a name that changed, a message in a file of its own."""
        directory = self.new_directory()
        spool = await self.started(directory, segment_octets=SEGMENT_OCTETS, large_octets=10_000)
        for number in range(messages):
            await deliver(spool, f"m{number}", [ANN, BOB] if number % 3 == 0 else [ANN], 300 * (number % 5))
        await deliver(spool, "large", [BOB], 30_000)
        await delete(spool, [2, 3], ANN)
        await spool.rename(BOB, "rob@example.test")
        await spool.stop()
        return directory

    async def repaired(self, directory: str, report: Report) -> None:
        """As the tool does it."""
        layout = Layout(Files(), directory)
        repair.set_aside(Files(), layout, report)
        repair.unlist(layout, report.lost)
        repair.forget_missing_segments(Files(), layout)
        spool = await self.started(directory)
        await spool.restate(repair.restatements(report))
        await spool.stop()

    async def read_back(self, directory: str) -> dict[str, list[bytes]]:
        spool = await self.started(directory)
        found = {name: await contents(spool, name) async for name in spool.maildrops()}
        await spool.stop()
        return found


class VerifyTests(SpoolToolTestCase):
    async def test_a_good_spool(self) -> None:
        """Nothing is found, and everything was read; the same beside a host that is at work."""
        directory = await self.filled()
        report = verify(Files(), directory)
        assert report.is_good, vars(report)
        assert (report.messages, report.waiting, report.torn) == (61, 0, 0)
        spool = await self.started(directory)
        await deliver(spool, "more")
        report = verify(Files(), directory)
        assert report.is_good, vars(report)
        assert report.messages == 62

    async def test_changes_nothing(self) -> None:
        """Every file is as it was."""
        directory = self.killed(await self.filled())
        before = {path: octets_of(path) for path in segment_files(directory)}
        verify(Files(), directory)
        assert {path: octets_of(path) for path in segment_files(directory)} == before

    async def test_after_a_kill(self) -> None:
        """What a host left behind that did not stop is no damage; a torn tail is none either."""
        directory = self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, "one")
        left = self.killed(directory)
        with index_of(left) as index:
            index.execute("DELETE FROM messages")
            index.execute("UPDATE segments SET position = 0, live = 0")
            index.execute("UPDATE maildrops SET messages = 0, octets = 0")
        append(segment_files(left)[0], b"half a rec")
        report = verify(Files(), left)
        assert (report.damaged, report.lost, report.torn) == ([], [], 10)

    async def test_without_an_index(self) -> None:
        """Checksums are read all the same, and what was lost is told as far as its record says it."""
        directory = await self.filled()
        path, (offset, end, _, metadata) = next(
            (path, record) for path in segment_files(directory) for record in records_of(path) if record[2] == 1
        )
        flip(path, end - 3)
        os.unlink(os.path.join(directory, "index.sqlite3"))
        report = verify(Files(), directory)
        assert [(one.start, one.stop) for one in report.damaged] == [(offset, end)]
        assert {lost.unique_id for lost in report.lost} == {metadata["unique_id"]}
        assert len(report.disagreements) == 1

    async def test_torn_without_an_index(self) -> None:
        """A torn tail is no damage then either, also of a host that is at work."""
        directory = self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, "one")
        left = self.killed(directory)
        append(segment_files(left)[0], b"half a rec")
        for name in [name for name in os.listdir(left) if name.startswith("index")]:
            os.unlink(f"{left}/{name}")
        report = verify(Files(), left)
        assert (report.damaged, report.lost, report.torn, report.waiting) == ([], [], 10, 0)
        assert report.messages == 1

    async def test_each_disagreement_is_seen(self) -> None:
        """An index that was tampered with never passes."""
        directory = await self.filled()
        for change in (
            "DELETE FROM messages WHERE rowid_like",
            "UPDATE messages SET offset = offset + 1 WHERE rowid_like",
            "UPDATE messages SET segment = segment + 1 WHERE rowid_like",
            "UPDATE messages SET octets = octets + 1 WHERE rowid_like",
            "UPDATE maildrops SET messages = messages + 1",
            "UPDATE maildrops SET octets = octets - 1",
            "UPDATE maildrops SET name = 'eve@example.test' WHERE name = 'rob@example.test'",
            "DELETE FROM maildrops WHERE name = 'rob@example.test'",
            "UPDATE segments SET live = live + 1",
            "INSERT INTO messages SELECT maildrop, time, unique_id, octets, segment, offset, length, 1 FROM deletions",
        ):
            copy = self.killed(directory)
            with index_of(copy) as index:
                one = "(maildrop, time) IN (SELECT maildrop, time FROM messages LIMIT 1)"
                assert index.execute(change.replace("rowid_like", one)).rowcount
            assert not verify(Files(), copy).is_good, change


class RepairTests(SpoolToolTestCase):
    async def test_flipped_bits(self) -> None:
        """Ten flipped bits: only the records hit are lost, the tool names them, and all others come back octet for octet."""
        for seed in range(6):
            directory = await self.filled()
            whole = await self.read_back(self.killed(directory))
            hit = self._flip_ten(directory, random.Random(seed))
            report = verify(Files(), directory)
            assert {lost.unique_id for lost in report.lost} == hit
            await self.repaired(directory, report)
            for later in (directory, self._without_index(directory)):
                found = await self.read_back(later)
                assert found.keys() == whole.keys()
                for name, left in found.items():
                    missing = [lost for lost in report.lost if lost.maildrop == name]
                    assert len(left) == len(whole[name]) - len(missing)
                    assert set(left) <= set(whole[name])

    def _flip_ten(self, directory: str, source: random.Random) -> set[str]:
        """@return: unique ids of the messages that were hit and that somebody still had."""
        hit = set()
        with index_of(directory) as index:
            live = {unique_id for (unique_id,) in index.execute("SELECT unique_id FROM messages")}
        for _ in range(10):
            path = source.choice(segment_files(directory))
            records = records_of(path)
            offset = source.randrange(HEADER_OCTETS, os.path.getsize(path))
            for start, end, _, metadata in records:
                if start <= offset < end:
                    hit.add(metadata.get("unique_id"))
            flip(path, offset)
        return hit & live

    def _without_index(self, directory: str) -> str:
        copy = self.killed(directory)
        for name in os.listdir(copy):
            if name.startswith("index.sqlite3"):
                os.unlink(os.path.join(copy, name))
        return copy

    async def test_afterwards_all_is_well(self) -> None:
        """A repaired spool passes verification, and the damaged stretch is in quarantine, octet for octet."""
        directory = await self.filled()
        path = segment_files(directory)[0]
        offset, end, _, _ = records_of(path)[0]
        flip(path, offset + 100)
        damaged = octets_of(path)[offset:end]
        await self.repaired(directory, verify(Files(), directory))
        report = verify(Files(), directory)
        assert report.is_good, vars(report)
        assert [one.quarantined for one in report.damaged] == [True]
        kept = [name for name in os.listdir(directory + "/quarantine") if name.endswith(".damaged")]
        assert [octets_of(f"{directory}/quarantine/{name}") for name in kept] == [damaged]

    async def test_a_segment_header(self) -> None:
        """A segment whose own header was hit loses nothing."""
        directory = await self.filled()
        whole = await self.read_back(self.killed(directory))
        flip(segment_files(directory)[0], 20)
        report = verify(Files(), directory)
        assert (report.lost, report.needs_repair) == ([], True)
        await self.repaired(directory, report)
        assert verify(Files(), directory).is_good
        assert await self.read_back(directory) == whole

    async def test_a_large_message(self) -> None:
        """It was safe once: without an index, too, it is damaged and no torn tail, and nothing of it is cut off."""
        directory = self.new_directory()
        spool = await self.started(directory, large_octets=10_000)
        outcome = await deliver(spool, "large", [BOB], 30_000)
        await spool.stop()
        path = next(path for path in segment_files(directory) if len(octets_of(path)) > 30_000)
        octets = len(octets_of(path))
        flip(path, 20_000)
        os.unlink(directory + "/index.sqlite3")
        assert [lost.unique_id for lost in verify(Files(), directory).lost] == [outcome.unique_id]
        await (await self.started(directory)).stop()
        assert len(octets_of(path)) == octets
        assert [event for event in self.events if isinstance(event, Trouble) and "is damaged from 64" in event.what]

    async def test_a_lost_segment(self) -> None:
        """One that somebody deleted: its messages are named, and the rest goes on."""
        directory = await self.filled()
        path = segment_files(directory)[1]
        there = {record[3].get("unique_id") for record in records_of(path)}
        os.unlink(path)
        report = verify(Files(), directory)
        assert {lost.unique_id for lost in report.lost} <= there
        assert report.lost
        await self.repaired(directory, report)
        assert verify(Files(), directory).is_good

    async def test_deletions_stay_deleted(self) -> None:
        """A deletion whose record was hit is written down anew, so that the mail does not come back with a new index."""
        directory = await self.filled()
        before = await self.read_back(self.killed(directory))
        for path in segment_files(directory):
            for offset, _, kind, _ in records_of(path):
                if kind in (2, 3):  # deletions and names
                    flip(path, offset + HEADER_OCTETS + 3)
        report = verify(Files(), directory)
        assert report.forgotten
        assert report.unstated
        assert not report.lost
        await self.repaired(directory, report)
        assert verify(Files(), directory).is_good
        assert await self.read_back(self._without_index(directory)) == before

    async def test_beside_a_session(self) -> None:
        """A host that runs goes on with what is left."""
        directory = await self.filled(10)
        spool = await self.started(directory)
        query = "SELECT segment, offset FROM messages JOIN maildrops ON id = maildrop WHERE name = ?"
        with index_of(directory) as index:
            segment, offset = index.execute(query, (ANN,)).fetchone()
        flip(f"{directory}/segments/{segment:016x}.seg", offset + 90)
        report = verify(Files(), directory)
        repair.set_aside(Files(), Layout(Files(), directory), report)
        repair.unlist(Layout(Files(), directory), report.lost)
        assert len(await subjects(spool)) == 7
        assert verify(Files(), directory).is_good


class InspectionTests(TestCase):
    def test_waits_for_a_compaction(self) -> None:
        """Whoever pins the segments has the lock that a compaction needs."""
        directory = self.mktemp()
        os.makedirs(directory + "/locks")
        layout = Layout(Files(), directory)
        with inspection.pinned(Files(), layout):
            fd = Files().open_lock(layout.compaction_lock)
            assert not Files().lock(fd)
            os.close(fd)


class Tool:
    """`mailhost spool`, by its words."""

    def __init__(self, mailhost: Command, config: Path) -> None:
        self._mailhost = mailhost
        self._config = config

    def __call__(self, verb: str, *more: str) -> Any:
        return self._mailhost("spool", verb, "--config", str(self._config), *more)

    def json(self, verb: str) -> Any:
        return json.loads(self(verb, "--json").out)


@pytest.fixture
def tool(mailhost: Command, config: Path) -> Tool:
    return Tool(mailhost, config)


def test_no_spool_yet(tool: Tool) -> None:
    """One clear line and exit status 1, whatever is asked."""
    for verb in ("status", "verify", "repair", "rebuild-index"):
        ended = tool(verb)
        assert (ended.status, ended.out) == (1, "")
        assert ended.err.endswith("there is no spool yet\n")
        assert ended.err.count("\n") == 1


def test_beside_a_host(tool: Tool, config: Path, start: Callable[..., Any]) -> None:
    """Everything goes while a host runs, but for making its index anew, which says why not."""
    host = start(PROGRAM, "run", "--config", str(config))
    send(host)
    state = tool.json("status")
    assert (state["index"], state["messages"], state["active"]) == ("good", 1, 1)
    assert tool.json("verify")["good"]
    assert tool("repair").out == "nothing is damaged\n"
    refused = tool("rebuild-index")
    assert (refused.status, refused.out) == (1, "")
    assert "a host has this spool open: stop it first" in refused.err
    assert host.end() == -signal.SIGTERM
    rebuilt = tool.json("rebuild-index")
    assert (rebuilt["maildrops"], rebuilt["messages"]) == (1, 1)
    again = start(PROGRAM, "run", "--config", str(config))
    assert messages(again) == 1


def test_damage_by_the_command_line(tool: Tool, config: Path, start: Callable[..., Any]) -> None:
    """Verify ends with status 1 and names the maildrop; repair lists the loss and ends with 0; then all is well."""
    host = start(PROGRAM, "run", "--config", str(config))
    send(host)
    send(host)
    assert host.end() == -signal.SIGTERM
    path = next(path for path in segment_files(str(config.parent / "spool")) if records_of(path))
    offset = next(record[0] for record in records_of(path) if record[2] == 1)
    flip(path, offset + 80)
    seen = tool("verify")
    assert seen.status == 1
    assert "lost: ann@example.test message " in seen.out
    mended = tool("repair")
    assert (mended.status, mended.out.count("lost: ann@example.test")) == (0, 1)
    listed = json.loads(Path(mended.out.rpartition("this list is in ")[2].strip()).read_text())
    assert [lost["maildrop"] for lost in listed] == ["ann@example.test"]
    assert (tool("verify").status, tool.json("status")["messages"]) == (0, 1)


def test_compact(tool: Tool, config: Path, start: Callable[..., Any]) -> None:
    """Beside a host: what its users have deleted is given back as far as the host is done with it."""
    host = start(PROGRAM, "run", "--config", str(config))
    send(host)
    assert tool.json("compact").keys() == {"segments", "octets"}
    assert tool("compact").out == "0 segments are gone, 0 octets are free again\n"
    assert tool.json("verify")["good"]
    assert host.end() == -signal.SIGTERM

"""`mailhost maildrop`: mail in from other programs, mail out to them, and nothing twice."""

from __future__ import annotations

import json
import mailbox
import os
import poplib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailhost.octets import Undoubler
from mailhost.refusal import SpoolFull
from mailhost.spool.files import Files
from mailhost.spool.log import inspection
from mailhost.spool.log.inspection import unwatched
from mailhost.spool.log.spool import LogSpool
from mailhost.tools import exporting, importing
from mailhost.tools.main import Failed
from mailhost.tools.mbox import read_mbox
from mailhost.tools.sources import Incoming, read_maildir
from tests.spool.log.using import ANN, BOB, LogSpoolTestCase, content_of, contents, delete, deliver
from tests.tools.conftest import PROGRAM, Running
from tests.tools.conftest import deliver as send

UIDLIST = b"3 V1275660208 N4 G3085f01b7f11094c501100008c4a11c1\n1 W20 :one,S=18\n2 Pkept-uidl :two\n3 :three\n"

MESSAGES = {
    "new/one,S=18": b"Subject: 1\n\n.dot\n",
    "cur/two:2,RS": b"Subject: 2\r\n\r\n..crlf\r\n\0\xff",
    "cur/three:2,": b"Subject: 3\n\nno end",
}
"""A Maildir as others leave it: LF and CRLF, dots, NUL, eight bits, a last line without its end."""

PLAIN = {
    "000000014c0907b0": b"Subject: 1\r\n\r\n.dot\r\n",
    "kept-uidl": b"Subject: 2\r\n\r\n..crlf\r\n\0\xff\r\n",
    "000000034c0907b0": b"Subject: 3\r\n\r\nno end\r\n",
}
"""The same by UIDL, as a POP3 client gets it."""


def make_maildir(path: Path) -> Path:
    for folder in ("tmp", "new", "cur", ".Sent/new", ".Sent/cur"):
        (path / folder).mkdir(parents=True)
    for number, (name, octets) in enumerate(MESSAGES.items()):
        (path / name).write_bytes(octets)
        os.utime(path / name, (1_000_000_000 + number, 1_000_000_000 + number))
    (path / "dovecot-uidlist").write_bytes(UIDLIST)
    return path


class MailTestCase(LogSpoolTestCase):
    async def plain(self, spool: LogSpool, name: str = ANN) -> dict[str, bytes]:
        """By unique id, in order."""
        maildrop = await spool.snapshot(name)
        listing = await maildrop.listing()
        return dict(zip(listing.unique_ids, [Undoubler().feed(wire) for wire in await contents(spool, name)]))

    def maildir(self) -> str:
        return str(make_maildir(Path(self.new_directory())))


class ImportTests(MailTestCase):
    async def test_maildir(self) -> None:
        """Dovecot's UIDLs, dates and flags are kept; every octet is, and line ends become CRLF."""
        spool = await self.started(self.new_directory())
        result = await importing.bring(spool, ANN, read_maildir(self.maildir()), unwatched)
        assert result == (3, 0)
        assert await self.plain(spool) == PLAIN
        maildrop = await spool.snapshot(ANN)
        assert [time // 1_000_000 for time in await maildrop.times()] == [1_000_000_000, 1_000_000_001, 1_000_000_002]
        assert [(await maildrop.content(n)).metadata.get("flags") for n in (1, 2, 3)] == [None, "RS", None]

    async def test_twice(self) -> None:
        """The second time nothing is added, also of what a user has deleted since, and also by another process."""
        directory, source = self.new_directory(), self.maildir()
        spool = await self.started(directory)
        await importing.bring(spool, ANN, read_maildir(source), unwatched)
        await delete(spool, [2])
        os.rename(f"{source}/new/one,S=18", f"{source}/cur/one,S=18:2,S")  # another program shows it meanwhile
        other = await self.started(directory)
        for again in (spool, other):
            assert await importing.bring(again, ANN, read_maildir(source), unwatched) == (0, 3)
        assert list(await self.plain(spool)) == ["000000014c0907b0", "000000034c0907b0"]

    async def test_the_same_into_two_maildrops(self) -> None:
        """What one maildrop has is nothing to another."""
        spool = await self.started(self.new_directory())
        for name in (ANN, BOB):
            assert await importing.bring(spool, name, read_maildir(self.maildir()), unwatched) == (3, 0)
            assert await self.plain(spool, name) == PLAIN

    async def test_interrupted(self) -> None:
        """An import that broke off is begun again, and ends with everything there once."""
        spool = await self.started(self.new_directory())
        messages = read_maildir(self.maildir())

        def broken() -> Any:
            yield b"Subject: half"
            raise OSError("the other disk is gone")

        with pytest.raises(OSError, match="is gone"):
            await importing.bring(spool, ANN, [*messages[:2], messages[2]._replace(blocks=broken)], unwatched)
        await importing.bring(spool, ANN, messages, unwatched)
        assert await self.plain(spool) == PLAIN

    async def test_after_a_kill(self) -> None:
        """Killed at any moment of an import, a spool takes the rest the next time, each message once."""
        source = [
            Incoming(f"id{number}", 1_000_000 + number, 50, lambda n=number: iter([content_of(f"m{n}")]))  # type: ignore[misc]
            for number in range(200)
        ]
        directory = self.new_directory()
        spool = await self.started(directory)
        left: list[str] = []

        def watch(done: int, total: int) -> None:
            if done * 5 // total > len(left):
                left.append(self.killed(directory))

        await importing.bring(spool, ANN, source, watch)
        assert len(left) == 5
        for copy in left:
            spool = await self.started(copy)
            result = await importing.bring(spool, ANN, source, unwatched)
            assert result.added + result.known == 200
            assert list(await self.plain(spool)) == [message.unique_id for message in sorted(source, key=_by_time)]

    async def test_with_a_new_index(self) -> None:
        """What came with an import is in the segments, so that it outlives the index."""
        directory = self.new_directory()
        spool = await self.started(directory)
        await importing.bring(spool, ANN, read_maildir(self.maildir()), unwatched)
        before = await self.plain(spool)
        await spool.stop()
        os.unlink(directory + "/index.sqlite3")
        spool = await self.started(directory)
        assert await self.plain(spool) == before
        assert await importing.bring(spool, ANN, read_maildir(self.maildir()), unwatched) == (0, 3)

    async def test_mbox(self) -> None:
        """Twice the same file adds nothing; a file that has grown adds what is new."""
        spool = await self.started(self.new_directory())
        path = self.new_directory()
        one = b"From a@far.example Sat Jan  3 01:05:34 1998\nSubject: 1\n\n>From me\n\n"
        _write(path, one + one.replace(b"1\n", b"2\n"))
        assert await importing.bring(spool, ANN, read_mbox(path), unwatched) == (2, 0)
        _write(path, one + one.replace(b"1\n", b"2\n") + one.replace(b"1\n", b"3\n"))
        assert await importing.bring(spool, ANN, read_mbox(path), unwatched) == (1, 2)
        assert list((await self.plain(spool)).values()) == [b"Subject: %d\r\n\r\nFrom me\r\n" % n for n in (1, 2, 3)]

    async def test_full_disk(self) -> None:
        """A refusal ends the import; what was added stays, and is known the next time."""
        spool = await self.started(self.new_directory())
        stage, staged = spool.stage, []

        async def full(*arguments: Any, **more: Any) -> Any:
            if len(staged) == 2:
                raise SpoolFull
            staged.append(1)
            return await stage(*arguments, **more)

        self.patch(spool, "stage", full)
        with pytest.raises(SpoolFull):
            await importing.bring(spool, ANN, read_maildir(self.maildir()), unwatched)
        self.patch(spool, "stage", stage)
        await importing.bring(spool, ANN, read_maildir(self.maildir()), unwatched)
        assert await self.plain(spool) == PLAIN


def _by_time(message: Incoming) -> int:
    return message.time


def _write(path: str, octets: bytes) -> None:
    Path(path).write_bytes(octets)


class ExportTests(MailTestCase):
    async def exported(self, spool: LogSpool, how: Any, name: str = ANN) -> str:
        target = self.new_directory()
        await how(spool, name, target, unwatched)
        return target

    async def test_there_and_back(self) -> None:
        """Maildir: unique ids, dates, flags and octets come back whole.  mbox: octets and dates do."""
        spool = await self.started(self.new_directory())
        await importing.bring(spool, ANN, read_maildir(self.maildir()), unwatched)
        await deliver(spool, "large", [ANN], 2_000_000)
        before = await self.plain(spool)
        times = list(await (await spool.snapshot(ANN)).times())
        by_maildir = await self.exported(spool, exporting.to_maildir)
        await importing.bring(spool, "m@example.test", read_maildir(by_maildir), unwatched)
        assert await self.plain(spool, "m@example.test") == before
        assert {m.unique_id: m.flags for m in read_maildir(by_maildir)}["kept-uidl"] == "RS"
        by_mbox = await self.exported(spool, exporting.to_mbox)
        await importing.bring(spool, "b@example.test", read_mbox(by_mbox), unwatched)
        assert list((await self.plain(spool, "b@example.test")).values()) == list(before.values())
        for name in ("m@example.test", "b@example.test"):
            assert [t // 1_000_000 for t in await (await spool.snapshot(name)).times()] == [
                t // 1_000_000 for t in times
            ]

    async def test_other_readers(self) -> None:
        """The standard library reads what is given out."""
        spool = await self.started(self.new_directory())
        for number in range(5):
            await deliver(spool, f"m{number}")
        maildir = mailbox.Maildir(await self.exported(spool, exporting.to_maildir), create=False)
        mbox = mailbox.mbox(await self.exported(spool, exporting.to_mbox), create=False)
        for box in (maildir, mbox):
            assert sorted(message["Subject"] for message in box) == [f"m{number}" for number in range(5)]

    async def test_beside_a_session(self) -> None:
        """While somebody holds the maildrop, and while mail comes in: what was there at the beginning is given out."""
        spool = await self.started(self.new_directory())
        for number in range(20):
            await deliver(spool, f"m{number}")
        held = await spool.open_maildrop(ANN, 1)
        coming: list[Any] = []

        def watch(done: int, total: int) -> None:
            if not coming:
                coming.append(Deferred.fromCoroutine(deliver(spool, "later")))

        result = await exporting.to_maildir(spool, ANN, self.new_directory(), watch)
        assert result == (20, [])
        await coming[0]
        held.release()

    async def test_beside_deletions(self) -> None:
        """What its holder deletes while it is given out is given out: it was there at the beginning."""
        spool = await self.started(self.new_directory(), segment_octets=3000)
        for number in range(20):
            await deliver(spool, f"m{number}", [ANN], 900)
        other = await self.started(spool._layout.root)
        deleting: list[Any] = []

        def watch(done: int, total: int) -> None:
            if not deleting:
                deleting.append(Deferred.fromCoroutine(delete(other, range(1, 20))))
                deleting[0].addCallback(lambda _: Deferred.fromCoroutine(other.compact()))

        with inspection.pinned(Files(), spool._layout):
            target = self.new_directory()
            assert await exporting.to_maildir(spool, ANN, target, watch) == (20, [])
            await deleting[0]
        assert len(read_maildir(target)) == 20

    async def test_damage(self) -> None:
        """A message that cannot be read back is named and left out, and nothing of it is in the file."""
        directory = self.new_directory()
        spool = await self.started(directory)
        outcomes = [await deliver(spool, f"m{number}", [ANN], 700_000) for number in range(3)]
        (segment,) = [f"{directory}/segments/{name}" for name in os.listdir(directory + "/segments")]
        _flip(segment, 1_000_000)
        for how in (exporting.to_maildir, exporting.to_mbox):
            target = self.new_directory()
            assert await how(spool, ANN, target, unwatched) == (2, [outcomes[1].unique_id])
            read = read_maildir if how is exporting.to_maildir else read_mbox
            assert len(read(target)) == 2

    async def test_overwrites_nothing(self) -> None:
        """What is there stays; a failed export leaves nothing behind."""
        spool = await self.started(self.new_directory())
        await deliver(spool, "m")
        target = self.new_directory()
        os.mkdir(target)
        for how in (exporting.to_maildir, exporting.to_mbox):
            with pytest.raises(Failed, match="is there already"):
                await how(spool, ANN, target, unwatched)
            with pytest.raises(Failed, match="No such file"):
                await how(spool, ANN, target + "/none/x", unwatched)
        assert os.listdir(os.path.dirname(target)) == ["spool"]


def _flip(path: str, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        octet = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([octet ^ 1]))


# ------------------------------------------------------------------------------------------------------- as it is typed


@pytest.fixture
def tool(mailhost: Callable[..., Any], config: Path) -> Callable[..., Any]:
    return lambda verb, *arguments: mailhost("maildrop", verb, *arguments, "--config", str(config))


def test_a_migration(tool: Callable[..., Any], config: Path, start: Callable[..., Running]) -> None:
    """A Dovecot user's mail, taken in beside a running host, is collected by POP3 with the UIDLs its client knows."""
    host = start(PROGRAM, "run", "--config", str(config))
    host.port("out")
    source = make_maildir(config.parent / "Maildir")
    imported = tool("import", "Ann@Example.Test", str(source))
    assert imported.out == (
        "ann@example.test: 3 messages added, 0 known already\nleft out, being mailboxes of their own: .Sent\n"
    )
    client = poplib.POP3("127.0.0.1", host.port("out"), timeout=10)
    client.user("ann@example.test")
    client.pass_("secret")
    uidls = [line.split()[1].decode() for line in client.uidl()[1]]
    assert uidls == list(PLAIN)
    assert [b"".join(line + b"\r\n" for line in client.retr(n)[1]) for n in (1, 2, 3)] == list(PLAIN.values())
    again = json.loads(tool("import", "ann", str(source), "--json").out)  # beside the session, too
    assert (again["added"], again["known"]) == (0, 3)
    client.quit()
    assert host.end() == -signal.SIGTERM


def test_looking(tool: Callable[..., Any], config: Path, start: Callable[..., Running]) -> None:
    """`list` and `show`, beside a running host; what a subject holds that is no text does not reach the terminal."""
    host = start(PROGRAM, "run", "--config", str(config))
    send(host)
    assert tool("list").out.split()[:2] == ["1", "messages"]
    assert json.loads(tool("list", "--json").out)["maildrops"][0]["maildrop"] == "ann@example.test"
    (one,) = json.loads(tool("show", "ann", "--json").out)["messages"]
    assert (one["number"], one["subject"], one["reverse_path"]) == (1, "x", "bob@far.example")
    source = config.parent / "mbox"
    source.write_bytes(b"From x@far.example Sat Jan  3 01:05:34 1998\nSubject: a\x1b[2Jb\n\ny\n")
    assert tool("import", "eve", str(source)).status == 0
    assert "\x1b" not in tool("show", "eve").out


def test_rename_and_remove(tool: Callable[..., Any], config: Path) -> None:
    """Both say what they did; a removal wants a yes; what is not there is told in one line."""
    source = make_maildir(config.parent / "Maildir")
    assert tool("import", "ann", str(source)).status == 0
    assert tool("rename", "ann", "eve").out == "ann@example.test is eve@example.test now\n"
    assert tool("remove", "eve").status == 1
    assert tool("remove", "eve", "--yes").out == "removed eve@example.test and its mail\n"
    for gone in (
        tool("remove", "eve", "--yes"),
        tool("show", "eve"),
        tool("export", "eve", "x"),
        tool("rename", "eve", "x"),
    ):
        assert (gone.status, gone.out, gone.err) == (1, "", "mailhost: there is no maildrop eve@example.test\n")
    assert tool("list").out == ""


def test_undelete(tool: Callable[..., Any], config: Path, start: Callable[..., Running]) -> None:
    """What a user deleted is listed and comes back under a new unique id, beside a running host."""
    host = start(PROGRAM, "run", "--config", str(config))
    send(host)
    assert json.loads(tool("undelete", "ann", "--json").out)["deleted"] == []
    client = poplib.POP3("127.0.0.1", host.port("out"), timeout=10)
    client.user("ann@example.test")
    client.pass_("secret")
    unique_id = client.uidl()[1][0].split()[1].decode()
    client.dele(1)
    client.quit()
    (one,) = json.loads(tool("undelete", "ann", "--json").out)["deleted"]
    assert one["unique_id"] == unique_id
    assert tool("undelete", "ann").out.startswith(unique_id)
    refused = tool("undelete", "ann", "nothing")
    assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
    (new,) = json.loads(tool("undelete", "ann", unique_id, "--json").out)["unique_ids"]
    assert new != unique_id
    (shown,) = json.loads(tool("show", "ann", "--json").out)["messages"]
    assert (shown["unique_id"], shown["subject"]) == (new, "x")
    assert tool("undelete", "ann", "--all").out == "ann@example.test: 1 messages are back\n"


def test_refused(tool: Callable[..., Any], config: Path) -> None:
    """One clear line, exit status 1."""
    (config.parent / "folder").mkdir()
    (config.parent / "letter").write_text("Subject: x\n\ny\n")
    make_maildir(config.parent / "Maildir")
    assert tool("import", "bob", "Maildir").status == 0
    assert tool("import", "ann", "Maildir").status == 0
    for arguments, said in (
        (("import", "ann", "none"), "No such file or directory"),
        (("import", "ann", "folder"), "neither a Maildir"),
        (("import", "ann", "letter"), "no mbox"),
        (("rename", "ann", "bob"), "there is a maildrop bob@example.test"),
        (("export", "ann", "folder"), "is there already"),
    ):
        ended = tool(*arguments)
        assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1), ended.err
        assert said in ended.err


DOVEADM = shutil.which("doveadm")

DOVECOT = """
base_dir = {0}/run
state_dir = {0}/state
log_path = {0}/log
protocols = pop3
ssl = no
mail_location = maildir:{0}/Maildir
mail_uid = {1}
mail_gid = {1}
first_valid_gid = 0
mail_home = {0}
"""

NOBODY = 65534
"""Dovecot serves no mail to root."""


@pytest.fixture
def dovecots_home() -> Iterator[Path]:
    """A folder that the user whom Dovecot runs as may enter."""
    path = Path(tempfile.mkdtemp(prefix="dovecot-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(DOVEADM is None, reason="Dovecot's doveadm is not installed")
def test_dovecot_reads_an_export(tool: Callable[..., Any], config: Path, dovecots_home: Path) -> None:
    """Dovecot goes on with an exported Maildir: the same UIDLs, dates, flags and octets."""
    make_maildir(config.parent / "source")
    assert tool("import", "ann", "source").status == 0
    assert tool("export", "ann", str(dovecots_home / "Maildir")).status == 0
    user = os.getuid() or NOBODY
    if user != os.getuid():
        for path in (dovecots_home, *dovecots_home.rglob("*")):
            os.chown(path, user, user)
    settings = dovecots_home / "dovecot.conf"
    settings.write_text(DOVECOT.format(dovecots_home, user))
    fields = "pop3.uidl flags date.received.unixtime text"
    fetched = subprocess.run(
        [str(DOVEADM), "-c", str(settings), "-f", "json", "fetch", fields, "all"],
        capture_output=True,
        timeout=30,
        check=False,
        env={**os.environ, "HOME": str(dovecots_home), "USER": "ann"},
    )
    assert fetched.returncode == 0, fetched.stderr
    rows = json.loads(fetched.stdout.decode("utf-8", "replace"))
    assert [row["pop3.uidl"] for row in rows] == list(PLAIN)
    assert {"\\Answered", "\\Seen"} <= set(rows[1]["flags"].split())
    assert [int(row["date.received.unixtime"]) for row in rows] == [1_000_000_000, 1_000_000_001, 1_000_000_002]
    assert rows[0]["text"].encode() == PLAIN["000000014c0907b0"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(
    any(folder.stat().st_mode & 0o001 == 0 for folder in Path(exporting.__file__).parents),
    reason="the user that root becomes cannot reach this checkout",
)
def test_as_the_owner(mailhost: Callable[..., Any], config: Path, dovecots_home: Path) -> None:
    """What root does with these tools leaves nothing in the spool that its user cannot open."""
    home = dovecots_home / "mail"
    home.mkdir()
    shutil.copy(config, home / "mailhost.toml")
    make_maildir(dovecots_home / "Maildir")
    os.chown(home, NOBODY, NOBODY)
    for path in (dovecots_home, *dovecots_home.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    file = ("--config", str(home / "mailhost.toml"))
    for command in (
        ("maildrop", "import", "ann", str(dovecots_home / "Maildir")),
        ("maildrop", "show", "ann"),
        ("maildrop", "export", "ann", str(home / "out")),
        ("backup", str(home / "backups")),
        ("spool", "verify"),
        ("spool", "rebuild-index"),
        ("spool", "compact"),
    ):
        ended = mailhost(*command, *file)
        assert ended.status == 0, ended.err
    made = [path for path in home.rglob("*") if path.name != "mailhost.toml"]
    assert {path.stat().st_uid for path in made} == {NOBODY}
    assert len(made) > 20

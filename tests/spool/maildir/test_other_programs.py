"""Maildirs that other programs write to and read from, too."""

from __future__ import annotations

import os
import time

import pytest

from mailhost.events import Trouble
from mailhost.refusal import ContentDamaged, MaildropInUse, NoSuchMessage, SpoolUnavailable
from mailhost.spool.files import Files
from tests.spool.maildir.using import (
    ANN,
    BOB,
    MaildirSpoolTestCase,
    content_of,
    contents,
    delete,
    deliver,
    message,
    read_all,
    unique_ids,
)

BARE = b"Subject: bare\n\n.dot\nline\n"
WIRE = b"Subject: bare\r\n\r\n..dot\r\nline\r\n"


class Counting(Files):
    """Counts how often files were opened and directories were listed."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.listed: list[str] = []

    def open(self, path: str, *, writable: bool = False) -> int:
        self.opened.append(os.path.basename(path))
        return super().open(path, writable=writable)

    def names(self, directory: str) -> list[str]:
        self.listed.append(os.path.basename(directory))
        return super().names(directory)


class ForeignMailTests(MaildirSpoolTestCase):
    """Mail that other programs delivered."""

    async def test_bare_line_feeds(self) -> None:
        """Files with LF line ends, in new/ or in cur/, are served with CRLF and counted so."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        self.put(f"{maildir}/new/1.a.host", BARE)
        self.put(f"{maildir}/cur/2.b.host:2,S", BARE)
        spool = await self.started(directory)
        assert await contents(spool) == [WIRE, WIRE]
        assert await unique_ids(spool) == ["1.a.host", "2.b.host"]
        maildrop = await spool.open_maildrop(ANN, 0)
        assert maildrop.totals == (2, 2 * (len(WIRE) - 1))
        assert (await maildrop.content(1)).octets == len(WIRE) - 1
        maildrop.release()

    async def test_all_line_ends(self) -> None:
        """CRLF stays, a lone CR stays, NUL and 8-bit stay, a last line without end gets one; sizes say what is sent."""
        files = {
            "1.crlf": (b"A: b\r\n\r\n.\r\n", b"A: b\r\n\r\n..\r\n"),
            "2.mixed": (b"A: b\n\r\nx\ry\0\xff\n", b"A: b\r\n\r\nx\ry\0\xff\r\n"),
            "3.no-end": (b"A: b\n\nx", b"A: b\r\n\r\nx\r\n"),
            "4.empty": (b"", b""),
            "5.cr-at-end": (b"A: b\n\nx\r", b"A: b\r\n\r\nx\r\r\n"),
        }
        directory = self.new_directory()
        maildir = self.maildir(directory)
        for name, (octets, _) in files.items():
            self.put(f"{maildir}/new/{name}", octets)
        spool = await self.started(directory)
        maildrop = await spool.open_maildrop(ANN, 0)
        sizes = (await maildrop.listing()).octets
        for number, (_, wire) in enumerate(files.values(), 1):
            content = await maildrop.content(number)
            assert await read_all(content) == wire
            assert content.octets == sizes[number - 1] == len(wire.replace(b"\r\n..", b"\r\n."))
        maildrop.release()

    async def test_sizes_in_names(self) -> None:
        """`W` is believed, but for a last line without end; `S` alone does not say how many line ends there are."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        octets = len(WIRE) - 1
        self.put(f"{maildir}/new/1.a,S={len(BARE)},W={octets}", BARE)
        self.put(f"{maildir}/new/2.b,S={len(BARE)}", BARE)
        self.put(f"{maildir}/new/3.c,S={len(BARE) - 1},W={octets - 2}", BARE[:-1])
        spool = await self.started(directory)
        maildrop = await spool.open_maildrop(ANN, 0)
        assert list((await maildrop.listing()).octets) == [octets] * 3
        assert await content_of(maildrop, 3) == WIRE
        maildrop.release()

    async def test_large(self) -> None:
        """A large file with LF line ends is streamed, and any part of it can be read."""
        lines = [b".line %d " % number + b"x" * (number % 90) for number in range(20_000)]
        octets = b"Subject: x\n\n" + b"\n".join(lines)
        wire = b"Subject: x\r\n\r\n" + b"".join(b"." + line + b"\r\n" for line in lines)
        directory = self.new_directory()
        self.put(f"{self.maildir(directory)}/new/1.a", octets)
        spool = await self.started(directory)
        maildrop = await spool.open_maildrop(ANN, 0)
        content = await maildrop.content(1)
        assert await read_all(content, 65_536) == wire
        assert (content.wire_octets, content.octets) == (len(wire), len(wire) - len(lines))
        assert content.header_octets == 14
        for offset in (0, 1, 262_143, 262_144, 300_001, 900_000, len(wire) - 3):
            assert await content.read(offset, 100_001) == wire[offset : offset + 100_001]
        maildrop.release()

    async def test_measured_once(self) -> None:
        """A file is read for its size when it is seen first, by whatever process, and not again."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        for number in range(3):
            self.put(f"{maildir}/new/{number}.a", BARE)
        await delete(await self.started(directory), ())
        files = Counting()
        spool = await self.started(directory, files=files)
        self.put(f"{maildir}/new/4.new", BARE)
        assert len(await unique_ids(spool)) == 4
        assert [name for name in files.opened if name.endswith((".a", ".new"))] == ["4.new"]

    async def test_index_forgets(self) -> None:
        """What is known of messages that are gone is thrown away in the end, and what is known of others stays."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        for number in range(1100):
            self.put(f"{maildir}/new/{number}.a", b"A: b\n\n")
        spool = await self.started(directory)
        await delete(spool, range(1, 1100))
        self.put(f"{maildir}/new/5000.b", BARE)
        assert await unique_ids(spool) == ["1099.a", "5000.b"]
        assert self.octets_in(
            f"{maildir}/mailhost.index"
        ) == b"mailhost maildir index 1\n8 1099.a 1099.a\n%d 5000.b 5000.b\n" % (len(WIRE) - 1)

    async def test_torn_index(self) -> None:
        """Whatever a crash left of what was known, sizes and unique-ids are right, now and later."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        self.put(f"{maildir}/new/1.a", BARE)
        self.put(f"{maildir}/new/2.b", BARE)
        await delete(await self.started(directory), ())
        whole = self.octets_in(f"{maildir}/mailhost.index")
        for octets in [*(whole[:end] for end in range(len(whole))), b"\0" * len(whole), whole[:30] + b"\0" * 40]:
            self.put(f"{maildir}/mailhost.index", octets)
            for _ in range(2):
                spool = await self.started(directory)
                assert await unique_ids(spool) == ["1.a", "2.b"]
                assert await contents(spool) == [WIRE, WIRE]
                await spool.stop()

    async def test_what_is_no_message(self) -> None:
        """Hidden files, and files in tmp/ and beside the three directories, are nobody's mail."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        for name in ("new/.hidden", "tmp/1.a", "dovecot.index.log", "subscriptions"):
            self.put(f"{maildir}/{name}", BARE)
        os.makedirs(f"{maildir}/.Sent/cur")
        self.put(f"{maildir}/.Sent/cur/1.x:2,S", BARE)
        spool = await self.started(directory)
        assert await contents(spool) == []

    async def test_leftovers_in_tmp(self) -> None:
        """What nobody has touched in tmp/ for 36 hours is removed, and nothing younger, and nothing elsewhere."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        now = time.time()
        for name, age in {"tmp/old": 37, "tmp/young": 35, "new/1.old": 1000, "cur/2.old:2,": 1000}.items():
            self.put(f"{maildir}/{name}", BARE)
            os.utime(f"{maildir}/{name}", (now - age * 3600,) * 2)
        spool = await self.started(directory)
        assert await contents(spool) == [WIRE, WIRE]
        assert os.listdir(f"{maildir}/tmp") == ["young"]

    async def test_order(self) -> None:
        """Messages come in the order of the times in their names, whoever delivered them."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        for name in ("1000000001.M5P1.h", "999999999.9_1.h", "1000000001.M10P1.h", "9999999999.z"):
            self.put(f"{maildir}/new/{name}", BARE)
        spool = await self.started(directory)
        ours = await deliver(spool, message("ours"))
        expected = ["999999999.9_1.h", "1000000001.M5P1.h", "1000000001.M10P1.h", ours, "9999999999.z"]
        assert await unique_ids(spool) == expected


class UniqueIdTests(MaildirSpoolTestCase):
    """UIDLs stay what clients knew."""

    def uidlist(self, maildir: str, *lines: str) -> None:
        self.put(f"{maildir}/dovecot-uidlist", "".join(f"{line}\n" for line in ("3 V255 N9", *lines)).encode())

    async def test_dovecots(self) -> None:
        """Mail that Dovecot has numbered has the UIDLs of Dovecot's POP3 server."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        self.put(f"{maildir}/cur/1.a,S={len(BARE)}:2,S", BARE)
        self.put(f"{maildir}/cur/2.b:2,", BARE)
        self.uidlist(maildir, f"7 :1.a,S={len(BARE)}", "8 Pkept :2.b")
        spool = await self.started(directory)
        assert await unique_ids(spool) == ["00000007000000ff", "kept"]

    async def test_once_shown(self) -> None:
        """A unique-id that was shown stays, although Dovecot numbers the message later; also after a restart."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        self.put(f"{maildir}/new/1.a", BARE)
        spool = await self.started(directory)
        assert await unique_ids(spool) == ["1.a"]
        os.rename(f"{maildir}/new/1.a", f"{maildir}/cur/1.a:2,S")
        self.uidlist(maildir, "7 :1.a")
        assert await unique_ids(spool) == ["1.a"]
        await spool.stop()
        assert await unique_ids(await self.started(directory)) == ["1.a"]

    async def test_ours(self) -> None:
        """Mail that this program delivered keeps the unique-id it was accepted under, whatever others make of its file."""
        directory = self.new_directory()
        spool = await self.started(directory)
        unique_id = await deliver(spool, message("ours"))
        maildir = f"{directory}/example.test/ann"
        (name,) = os.listdir(f"{maildir}/new")
        self.uidlist(maildir, f"7 :{name}")
        os.rename(f"{maildir}/new/{name}", f"{maildir}/cur/{name}:2,RS")
        assert await unique_ids(spool) == [unique_id]
        os.rename(f"{maildir}/cur/{name}:2,RS", f"{maildir}/cur/{name.partition(',')[0]}:2,RS")
        assert await unique_ids(spool) == [unique_id]
        assert await contents(spool) == [message("ours")]

    async def test_copied_file(self) -> None:
        """Two files never show one unique-id."""
        directory = self.new_directory()
        spool = await self.started(directory)
        unique_id = await deliver(spool, message("ours"))
        maildir = f"{directory}/example.test/ann"
        (name,) = os.listdir(f"{maildir}/new")
        os.link(f"{maildir}/new/{name}", f"{maildir}/cur/{name.partition(',')[0]}:2,")
        found = await unique_ids(spool)
        assert len(set(found)) == 2
        assert unique_id in found


class BesideASessionTests(MaildirSpoolTestCase):
    """What other programs do while a session is open."""

    async def test_moved_and_flagged(self) -> None:
        """A message that is moved to cur/ or gets flags can still be read and deleted."""
        directory = self.new_directory()
        spool = await self.started(directory)
        for subject in "one", "two", "three":
            await deliver(spool, message(subject))
        maildir = f"{directory}/example.test/ann"
        maildrop = await spool.open_maildrop(ANN, 0)
        for name in os.listdir(f"{maildir}/new"):
            os.rename(f"{maildir}/new/{name}", f"{maildir}/cur/{name}:2,")
        assert await content_of(maildrop, 1) == message("one")
        for name in os.listdir(f"{maildir}/cur"):
            os.rename(f"{maildir}/cur/{name}", f"{maildir}/cur/{name}S")
        assert await content_of(maildrop, 2) == message("two")
        for name in os.listdir(f"{maildir}/cur"):
            os.rename(f"{maildir}/cur/{name}", f"{maildir}/cur/{name}T")
        await maildrop.update([1, 3])
        maildrop.release()
        assert await contents(spool) == [message("two")]

    async def test_one_moved_and_deleted(self) -> None:
        """The same when it is the only one to be deleted."""
        directory = self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, message("one"))
        maildir = f"{directory}/example.test/ann"
        maildrop = await spool.open_maildrop(ANN, 0)
        (name,) = os.listdir(f"{maildir}/new")
        os.rename(f"{maildir}/new/{name}", f"{maildir}/cur/{name}:2,S")
        await maildrop.update([1])
        maildrop.release()
        assert os.listdir(f"{maildir}/cur") == []
        assert await contents(spool) == []

    async def test_removed(self) -> None:
        """A message that another program removed is no message any more; the others are, and removing it again is no error."""
        directory = self.new_directory()
        spool = await self.started(directory)
        for subject in "one", "two":
            await deliver(spool, message(subject))
        maildir = f"{directory}/example.test/ann"
        maildrop = await spool.open_maildrop(ANN, 0)
        os.unlink(f"{maildir}/new/{min(os.listdir(f'{maildir}/new'))}")
        with pytest.raises(NoSuchMessage):
            await maildrop.content(1)
        assert await content_of(maildrop, 2) == message("two")
        await maildrop.update([1])
        maildrop.release()
        assert await contents(spool) == [message("two")]

    async def test_cut_off(self) -> None:
        """A file of ours that has lost or gained octets is not sent as if it were whole, and the operator is told."""
        directory = self.new_directory()
        spool = await self.started(directory)
        for lines in 1, 20_000:
            await deliver(spool, message("cut", lines))
        maildir = f"{directory}/example.test/ann"
        maildrop = await spool.open_maildrop(ANN, 0)
        begun = await maildrop.content(2)
        for name in os.listdir(f"{maildir}/new"):
            os.truncate(f"{maildir}/new/{name}", 50)
        for number in 1, 2:
            with pytest.raises(ContentDamaged):
                await maildrop.content(number)
        with pytest.raises(ContentDamaged):
            await begun.read(100_000, 1000)
        maildrop.release()
        assert len([event for event in self.events if isinstance(event, Trouble)]) == 2

    async def test_large_content_outlives_its_name(self) -> None:
        """A large message that is being sent is sent to its end, though its file is removed meanwhile."""
        directory = self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, message("large", 20_000))
        maildir = f"{directory}/example.test/ann"
        maildrop = await spool.open_maildrop(ANN, 0)
        content = await maildrop.content(1)
        first = await content.read(0, 1000)
        (name,) = os.listdir(f"{maildir}/new")
        os.unlink(f"{maildir}/new/{name}")
        whole = first + await content.read(1000, content.wire_octets)
        assert whole.endswith(message("large", 20_000))
        maildrop.release()

    async def test_flags_and_folders_stay(self) -> None:
        """Collecting and deleting changes no flag, and nothing but the messages that are deleted."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        self.put(f"{maildir}/cur/1.a:2,FS", BARE)
        self.put(f"{maildir}/new/2.b", BARE)
        self.put(f"{maildir}/cur/3.c:2,", BARE)
        os.makedirs(f"{maildir}/.Sent/cur")
        self.put(f"{maildir}/.Sent/cur/1.x:2,S", BARE)
        spool = await self.started(directory)
        assert await contents(spool) == [WIRE] * 3
        await delete(spool, [3])
        assert os.listdir(f"{maildir}/cur") == ["1.a:2,FS"]
        assert os.listdir(f"{maildir}/new") == ["2.b"]
        assert os.listdir(f"{maildir}/.Sent/cur") == ["1.x:2,S"]


class MaildirsOfOthersTests(MaildirSpoolTestCase):
    """Whole Maildirs that come and go."""

    async def test_maildir_is_taken_away(self) -> None:
        """When somebody removed a Maildir the next message but one makes it anew; none is acknowledged that is nowhere."""
        directory = self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, message("lost with the Maildir"))
        os.rename(f"{directory}/example.test/ann", f"{directory}/example.test/.gone")
        with pytest.raises(SpoolUnavailable):
            await deliver(spool, message("refused"))
        await deliver(spool, message("next"))
        assert await contents(spool) == [message("next")]

    async def test_maildir_is_taken_away_before_a_login(self) -> None:
        """A login then finds an empty maildrop."""
        directory = self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, message("lost with the Maildir"))
        assert len(await contents(spool)) == 1
        os.rename(f"{directory}/example.test/ann", f"{directory}/example.test/.gone")
        assert await contents(spool) == []

    async def test_names(self) -> None:
        """A Maildir that another program made is a maildrop: it exists, is listed, renamed and removed."""
        directory = self.new_directory()
        self.put(f"{self.maildir(directory)}/new/1.a", BARE)
        spool = await self.started(directory)
        assert await spool.exists(ANN)
        assert [name async for name in spool.maildrops()] == [ANN]
        assert (await spool.totals(ANN)).messages == 1
        await spool.rename(ANN, BOB)
        assert await contents(spool, BOB) == [WIRE]
        await spool.remove(BOB)
        assert not await spool.exists(BOB)

    async def test_removed_maildrops_leave_nothing(self) -> None:
        """All that was in a removed maildrop's Maildir is gone, folders too; if it was cut off, after the next start."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        os.makedirs(f"{maildir}/.Sent/cur")
        self.put(f"{maildir}/.Sent/cur/1.x:2,S", BARE)
        spool = await self.started(directory)
        await spool.remove(ANN)
        await spool.stop()
        os.makedirs(f"{directory}/.mailhost/removed/left/new")
        spool = await self.started(directory)
        await spool.stop()
        assert os.listdir(f"{directory}/.mailhost/removed") == []
        assert os.listdir(f"{directory}/example.test") == []

    async def test_a_lock_of_another_process(self) -> None:
        """Who has locked `mailhost.lock` has the maildrop, in whatever process."""
        directory = self.new_directory()
        one, other = await self.started(directory), await self.started(directory)
        await deliver(one, message("one"))
        held = await other.open_maildrop(ANN, 0)
        with pytest.raises(MaildropInUse):
            await one.open_maildrop(ANN, 0)
        await deliver(one, message("two"))
        held.release()
        assert len(await contents(one)) == 2

    async def test_renamed_by_another_process(self) -> None:
        """A process that knew a name does not deliver to whom it means no longer."""
        directory = self.new_directory()
        one, other = await self.started(directory), await self.started(directory)
        await deliver(one, message("first"))
        await other.rename(ANN, BOB)
        await deliver(one, message("second"))
        assert await contents(other, BOB) == [message("first")]
        assert await contents(other, ANN) == [message("second")]


class KeptListingTests(MaildirSpoolTestCase):
    """A listing is not read again while nothing has changed."""

    def long_ago(self, maildir: str) -> None:
        for part in "new", "cur":
            os.utime(f"{maildir}/{part}", (1_000_000_000, 1_000_000_000))

    async def test_kept(self) -> None:
        """Of directories that stood still the names are read once."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        self.put(f"{maildir}/new/1.a", BARE)
        self.long_ago(maildir)
        files = Counting()
        spool = await self.started(directory, files=files)
        await unique_ids(spool)
        files.listed.clear()
        assert await unique_ids(spool) == ["1.a"]
        assert await spool.totals(ANN) == (1, len(WIRE) - 1)
        assert files.listed == []

    async def test_changed_later(self) -> None:
        """After a change the next session sees it."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        self.put(f"{maildir}/new/1.a", BARE)
        self.long_ago(maildir)
        spool = await self.started(directory)
        assert await unique_ids(spool) == ["1.a"]
        self.put(f"{maildir}/cur/2.b:2,S", BARE)
        assert await unique_ids(spool) == ["1.a", "2.b"]

    async def test_changed_within_the_clocks_grain(self) -> None:
        """A change that leaves the directory's time as it was is seen nevertheless, while that time is young."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        self.put(f"{maildir}/new/1.a", BARE)
        spool = await self.started(directory)
        stamp = os.stat(f"{maildir}/new").st_mtime_ns
        assert await unique_ids(spool) == ["1.a"]
        self.put(f"{maildir}/new/2.b", BARE)
        os.utime(f"{maildir}/new", ns=(stamp, stamp))
        assert await unique_ids(spool) == ["1.a", "2.b"]

    async def test_clock_set_back(self) -> None:
        """A directory that changed in the future is read every time."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        os.utime(f"{maildir}/new", (4_000_000_000, 4_000_000_000))
        files = Counting()
        spool = await self.started(directory, files=files)
        await unique_ids(spool)
        files.listed.clear()
        await unique_ids(spool)
        assert files.listed == ["tmp", "new", "cur"]

    async def test_moved_while_it_is_listed(self) -> None:
        """A message that another program moves between two looks is listed once."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        self.put(f"{maildir}/new/1.a", BARE)

        class Moving(Files):
            moved = False

            def names(self, directory: str) -> list[str]:
                found = super().names(directory)
                if directory == f"{maildir}/new" and found and not self.moved:
                    self.moved = True
                    os.rename(f"{maildir}/new/1.a", f"{maildir}/cur/1.a:2,")
                return found

        spool = await self.started(directory, files=Moving())
        assert await unique_ids(spool) == ["1.a"]
        assert await contents(spool) == [WIRE]

    async def test_new_mail_while_it_is_listed(self) -> None:
        """A listing during which the directory changed is read again, so that no older message is missed."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        self.put(f"{maildir}/cur/1.a:2,", BARE)

        class Renaming(Files):
            """A program that changes a flag just when the directory is read: the old name is gone, the new one not yet seen."""

            times = 0

            def names(self, directory: str) -> list[str]:
                found = super().names(directory)
                if directory == f"{maildir}/cur" and self.times < 2:
                    self.times += 1
                    os.rename(f"{maildir}/cur/{found[0]}", f"{maildir}/cur/{found[0]}S")
                    return []
                return found

        self.long_ago(maildir)
        spool = await self.started(directory, files=Renaming())
        assert await unique_ids(spool) == ["1.a"]

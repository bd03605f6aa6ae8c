"""
One Maildir, served by this program and by Dovecot.

Dovecot's POP3 server and `doveadm` are run as commands, without its daemons.  They refuse to work as root; then the files are nobody's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Copy, Envelope, Path
from mailhost.interfaces import IMaildrop
from mailhost.spool.maildir.spool import MaildirSpool

POP3 = "/usr/lib/dovecot/pop3"
CONFIGURATION = """\
base_dir = {root}/run
log_path = {root}/log
ssl = no
protocols = pop3
mail_location = maildir:{maildir}
first_valid_uid = 1
first_valid_gid = 0
mail_uid = {uid}
mail_gid = {gid}
"""

NOBODY = 65534
ANN = "ann@example.test"
ENVELOPE = Envelope(
    Client("s1", "192.0.2.1", 40000, "mx", "smtp"), NULL_REVERSE_PATH, NO_PARAMETERS, (Path("ann", "example.test"),)
)
MESSAGES = [
    b"Subject: dots\r\n\r\n..\r\n...two\r\n",
    b"Subject: 8-bit\r\n\r\n" + bytes(range(0x80, 0x100)) + b"\r\n",
    b"Subject: long\r\n\r\n" + b"x" * 100_000 + b"\r\n",
    b"Subject: large\r\n\r\n" + b"..a line of a large message\r\n" * 80_000,
    b"no header\r\n",
]

pytestmark = pytest.mark.skipif(
    not (os.path.exists(POP3) and shutil.which("doveadm")), reason="Dovecot's POP3 server and doveadm are not installed"
)


class DovecotTests(TestCase):
    """Dovecot 2.3; version 2.4 has another configuration language."""

    timeout = 60

    async def setUp(self) -> None:
        self.root = tempfile.mkdtemp(prefix="dovecot-")
        self.addCleanup(shutil.rmtree, self.root)
        os.chmod(self.root, 0o755)
        self.maildir = f"{self.root}/mail/example.test/ann"
        self._configure()
        self.spool = MaildirSpool(f"{self.root}/mail", reactor=reactor)
        await self.spool.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.spool.stop()))
        await self.spool.create(ANN)
        self._probe()

    def _configure(self) -> None:
        root = os.geteuid() == 0
        uid, gid = (NOBODY, NOBODY) if root else (os.geteuid(), os.getegid())
        self.owner = (uid, gid) if root else None
        with open(f"{self.root}/dovecot.conf", "w") as file:
            file.write(CONFIGURATION.format(root=self.root, maildir=self.maildir, uid=uid, gid=gid))

    def _probe(self) -> None:
        """Dovecot does not work everywhere: 2.4 does not read this configuration, a sandbox may not let it change its user."""
        try:
            self.doveadm("mailbox", "status", "messages", "INBOX")
        except subprocess.CalledProcessError as error:
            self.skipTest(f"Dovecot does not run here: {error.stderr.decode(errors='replace').strip()}")

    # -- Dovecot

    def run_dovecot(self, command: Sequence[str], given: bytes) -> bytes:
        if self.owner is not None:  # as if this program had run as that user
            for path, directories, files in os.walk(self.root):
                for name in (".", *directories, *files):
                    os.chown(os.path.join(path, name), *self.owner)
        environment = {**os.environ, "HOME": self.root, "USER": "ann"}
        done = subprocess.run(
            command, input=given, env=environment, cwd=self.root, capture_output=True, timeout=30, check=True
        )
        return done.stdout

    def doveadm(self, *arguments: str, given: bytes = b"") -> bytes:
        return self.run_dovecot(["doveadm", "-c", f"{self.root}/dovecot.conf", *arguments], given)

    def pop3(self, *commands: str) -> bytes:
        """@return: the replies to these and QUIT."""
        given = "".join(f"{command}\r\n" for command in (*commands, "QUIT")).encode()
        return self.run_dovecot([POP3, "-c", f"{self.root}/dovecot.conf"], given)

    def retrieved(self, number: int) -> tuple[int, bytes]:
        """What Dovecot says that a message's size is, and what it sends."""
        match = re.match(rb"\+OK (\d+) octets\r\n(.*?\r\n)\.\r\n", self.pop3(f"RETR {number}"), re.DOTALL)
        assert match is not None
        return int(match[1]), match[2]

    def scan(self, command: str) -> list[list[str]]:
        """The lines of a reply to LIST or UIDL."""
        reply = self.pop3(command).decode()
        lines = [line.split(" ") for line in reply.split("\r\n")]
        return [line for line in lines if len(line) == 2 and line[0].isdecimal()]

    # -- this program

    async def deliver(self, content: bytes) -> str:
        staged = await self.spool.stage(ENVELOPE, [Copy(ANN, b"")])
        for start in range(0, len(content), 65_536):
            room = staged.write(content[start : start + 65_536])
            if room is not None:
                await room
        return (await staged.commit()).unique_id

    async def opened(self) -> IMaildrop:
        maildrop = await self.spool.open_maildrop(ANN, 0)
        self.addCleanup(maildrop.release)
        return maildrop

    # -- both

    async def test_dovecot_reads_ours(self) -> None:
        """What this program delivered Dovecot sends octet for octet, with the same sizes in its listing."""
        for content in MESSAGES:
            await self.deliver(content)
        sizes = [int(size) for _, size in self.scan("LIST")]
        assert sizes == list((await (await self.opened()).listing()).octets)
        for number, content in enumerate(MESSAGES, 1):
            assert self.retrieved(number) == (sizes[number - 1], content)

    async def test_unique_ids_outlive_dovecot(self) -> None:
        """After Dovecot has numbered, moved and flagged our mail it has the unique-ids it was accepted under."""
        unique_ids = [await self.deliver(content) for content in MESSAGES]
        self.doveadm("flags", "add", r"\Seen \Flagged", "mailbox", "INBOX", "all")
        names = [*os.listdir(f"{self.maildir}/new"), *os.listdir(f"{self.maildir}/cur")]
        assert all(name.endswith(":2,FS") for name in names)
        maildrop = await self.opened()
        assert list((await maildrop.listing()).unique_ids) == unique_ids
        for number, content in enumerate(MESSAGES, 1):
            assert await (await maildrop.content(number)).read(0, 1 << 24) == content

    async def test_a_maildir_of_dovecots(self) -> None:
        """Mail that Dovecot put there is served with the UIDLs and sizes that its POP3 clients knew, octet for octet."""
        for content in b"Subject: lf\n\n.dot\nend\n", b"Subject: crlf\r\n\r\nend\r\n", b"Subject: no end\n\nend":
            self.doveadm("save", given=content)
        uidls = [uidl for _, uidl in self.scan("UIDL")]
        sizes = [int(size) for _, size in self.scan("LIST")]
        maildrop = await self.opened()
        listing = await maildrop.listing()
        assert list(listing.unique_ids) == uidls
        for number in range(1, 4):
            wire = await (await maildrop.content(number)).read(0, 1 << 24)
            size, sent = self.retrieved(number)
            assert wire == sent
            # Dovecot does not count the line end that it adds to a last line without one; we do.
            missing = 2 * (number == 3)
            assert listing.octets[number - 1] == sizes[number - 1] + missing == size + missing

    async def test_deleted_here_is_gone_there(self) -> None:
        """What a session of ours removes Dovecot does not show, nor does it lose the rest; and the other way round."""
        for content in MESSAGES[:3]:
            await self.deliver(content)
        before = self.scan("UIDL")
        maildrop = await self.spool.open_maildrop(ANN, 0)
        await maildrop.update([2])
        maildrop.release()
        after = self.scan("UIDL")
        assert [uidl for _, uidl in after] == [before[0][1], before[2][1]]
        self.pop3("DELE 1")
        maildrop = await self.opened()
        assert maildrop.totals.messages == 1
        assert await (await maildrop.content(1)).read(0, 1 << 24) == MESSAGES[2]

"""
The same maildrop and the same sessions against this server and Dovecot: whatever differs is known, and explained in `docs/pop3.md`.

Sessions are made by a seeded generator: every command with every form of argument, good and bad, one by one or pipelined, ended by QUIT
or by a lost connection.  What is compared is what a client acts on: status, numbers, listings, content; not the texts for people.
"""

from __future__ import annotations

import random
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.live.dovecot import PASSWORD, Dovecot, why_not
from tests.live.host import Account, Host, free_ports

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

SESSIONS = 400
MANY_SESSIONS = 6000
SESSIONS_PER_ACCOUNT = 12
DOCUMENT = Path(__file__).parents[2] / "docs" / "pop3.md"

MESSAGES = [
    b"Subject: plain\r\n\r\nbody\r\n",
    b"Subject: dots\r\n\r\n.\r\n..\r\n...three\r\n.four\r\n",
    b"Subject: no body\r\n\r\n",
    b"Subject: no end of the header\r\n",
    b"\r\nbody without a header\r\n",
    b"no header at all\r\nsecond line\r\n",
    b"Subject: empty lines\r\n\r\n\r\n\r\n\r\nlast\r\n",
    b"Subject: 8-bit \xe4\xc3\xa4\r\n\r\n" + bytes(range(0x80, 0x100)) + b"\r\n",
    b"Subject: long\r\n\r\n" + b"x" * 100_000 + b"\r\n.\r\n",
    b"Subject: many lines\r\n\r\n" + b"".join(b".%d\r\n" % number for number in range(5000)),
    b"Subject: blanks \r\n\t folded\r\n \r\n\r\n \r\n\t\r\nend\r\n",
]


class Reply(NamedTuple):
    """As far as a client acts on it."""

    ok: bool
    numbers: bytes = b""
    body: bytes = b""


class Client:
    """One connection; what is said is said as it is."""

    def __init__(self, port: int, address: str, password: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._file = self._socket.makefile("rb")
        assert self._file.readline().startswith(b"+OK")
        for line in (f"USER {address}", f"PASS {password}"):
            self.say(line.encode() + b"\r\n")
            answer = self._file.readline()
            assert answer.startswith(b"+OK"), answer

    def say(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def reply(self, command: bytes) -> Reply:
        line = self._file.readline()
        if not line.startswith(b"+OK"):
            assert line.startswith(b"-ERR"), (command, line)
            return Reply(False)
        keyword = command.split(b" ")[0].upper()
        if keyword == b"STAT" or self._is_single(keyword, line):
            return Reply(True, b" ".join(line.split()[1:3]))
        if keyword in (b"LIST", b"UIDL", b"RETR", b"TOP", b"CAPA"):
            return Reply(True, b"", self._body())
        return Reply(True)

    def _is_single(self, keyword: bytes, line: bytes) -> bool:
        return bool(
            keyword in (b"LIST", b"UIDL")
            and re.fullmatch(rb"\+OK \d+ (\d+|\S+)\r\n", line)
            and not (keyword == b"LIST" and re.search(rb"messages", line))
        )

    def _body(self) -> bytes:
        lines = []
        while (line := self._file.readline()) != b".\r\n":
            assert line.endswith(b"\n"), "the connection was lost amid a reply"
            lines.append(line)
        return b"".join(lines)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class Difference(NamedTuple):
    """One that is known: how it is recognised, and the title of its paragraph in docs/pop3.md."""

    title: str
    holds: Callable[[bytes, Reply, Reply], bool]


def words(command: bytes) -> list[bytes]:
    return [word for word in command.split(b" ") if word]


def _argument_where_none_belongs(command: bytes, our: Reply, their: Reply) -> bool:
    keyword, *arguments = words(command)
    return (
        keyword.upper() in (b"CAPA", b"NOOP", b"QUIT", b"RSET", b"STAT") and bool(arguments) and not our.ok and their.ok
    )


def _number_larger_than_any(command: bytes, our: Reply, their: Reply) -> bool:
    return command[:4].upper() == b"TOP " and len(words(command)[-1]) > 18 and our.ok and not their.ok


def _space_behind_the_last(command: bytes, our: Reply, their: Reply) -> bool:
    return command.endswith(b" ") and our.ok and not their.ok


KNOWN = [
    Difference("An argument where none belongs", _argument_where_none_belongs),
    Difference("A number of lines larger than any", _number_larger_than_any),
    Difference("A space behind the last argument", _space_behind_the_last),
]


class Session(NamedTuple):
    commands: list[bytes]
    pipelined: bool
    ends_by: bytes


def sessions(seed: int, count: int) -> Iterator[Session]:
    chance = random.Random(seed)
    for _ in range(count):
        commands = [_command(chance) for _ in range(chance.randint(1, 14))]
        yield Session(commands, chance.random() < 0.4, b"QUIT" if chance.random() < 0.7 else b"")


def _command(chance: random.Random) -> bytes:
    number = chance.choice(
        [b"%d" % chance.randint(1, 11)] * 12
        + [b"0", b"12", b"99999999999999999999", b"-1", b"+1", b"01", b"1x", b"x", b"\xff"]
    )
    lines = chance.choice([b"0", b"1", b"3", b"100000", b"99999999999999999999", b"-1", b"x", b"", b"1 1"])
    forms = [
        b"STAT",
        b"LIST",
        b"UIDL",
        b"NOOP",
        b"RSET",
        b"LIST " + number,
        b"UIDL " + number,
        b"RETR " + number,
        b"TOP " + number + b" " + lines,
        b"DELE " + number,
    ]
    odd = [
        b"STAT 1", b"LIST 1 2", b"UIDL 1 2", b"NOOP x", b"RSET x", b"RETR", b"RETR 1 2", b"TOP", b"TOP 1",
        b"DELE", b"DELE 1 2", b"QUIT x", b"CAPA x", b"XYZZY", b"", b" STAT", b"stat", b"rEtR " + number,
        b"LIST ", b"LIST  1", b"RETR  1", b"RETR 1 ", b"TOP 1  1", b"STAT ", b"NOOP ", b"DELE  1", b"UIDL ",
        b"USER x", b"PASS x", b"APOP x y", b"AUTH PLAIN", b"STLS",
    ]  # fmt: skip
    return chance.choice(forms if chance.random() < 0.75 else odd)


def run(client: Client, session: Session) -> Iterator[Reply]:
    if session.pipelined:
        client.say(b"".join(command + b"\r\n" for command in session.commands))
    for command in session.commands:
        if not session.pipelined:
            client.say(command + b"\r\n")
        yield client.reply(command)


class Pair:
    """Two maildrops with the same messages, and the unique-ids that each server has for them."""

    def __init__(self, host: Host, dovecot: Dovecot, account: Account) -> None:
        self._servers = ((host.ports.plain_pop3, account), (dovecot.port, Account(account.address, PASSWORD)))
        messages = [*MESSAGES]
        random.Random(account.address).shuffle(messages)
        host.deliver(account, *messages)
        dovecot.put(account.address, host.fetch(account))
        self._unique_ids = [self._known(*server) for server in self._servers]

    def _known(self, port: int, account: Account) -> dict[bytes, bytes]:
        client = Client(port, account.address, account.password)
        client.say(b"UIDL\r\n")
        lines = client.reply(b"UIDL").body.split(b"\r\n")[:-1]
        client.close()
        return {line.split(b" ")[1]: b"<" + line.split(b" ")[0] + b">" for line in lines}

    def compare(self, session: Session, found: Counter[str]) -> bool:
        """
        @return: whether the two maildrops are still the same.
        @raise AssertionError: something differs, and nobody knows why.
        """
        ours, theirs = (Client(port, account.address, account.password) for port, account in self._servers)
        same = True
        for command, our, their in zip(session.commands, run(ours, session), run(theirs, session)):
            if command[:4].upper() == b"UIDL":
                our, their = (self._named(reply, ids) for reply, ids in zip((our, their), self._unique_ids))
            if our != their and not (command.upper().startswith(b"CAPA") and our.ok == their.ok):
                found[self._explained(command, our, their)] += 1
                if command[:4].upper() in (b"DELE", b"RSET", b"QUIT"):
                    same = False
                    break
        else:
            if session.ends_by:
                assert [self._quit(client) for client in (ours, theirs)] == [True, True]
        ours.close()
        theirs.close()
        return same

    def _named(self, reply: Reply, unique_ids: dict[bytes, bytes]) -> Reply:
        """With the number that the message had at first in place of its unique-id."""

        def name(match: re.Match[bytes]) -> bytes:
            return unique_ids[match[0]]

        numbers, body = (re.sub(rb"(?<=\d )\S+", name, octets) for octets in (reply.numbers, reply.body))
        return Reply(reply.ok, numbers, body)

    def _explained(self, command: bytes, our: Reply, their: Reply) -> str:
        for difference in KNOWN:
            if difference.holds(command, our, their):
                return difference.title
        raise AssertionError(f"{command!r}: ours {_short(our)}, Dovecot's {_short(their)}")

    def _quit(self, client: Client) -> bool:
        client.say(b"QUIT\r\n")
        return client.reply(b"QUIT").ok


def _short(reply: Reply) -> Reply:
    return Reply(reply.ok, reply.numbers, reply.body[:200])


@pytest.fixture(scope="module")
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Pair]]:
    """Makes maildrops for both servers, which run as long as this module's tests."""
    host = Host(tmp_path_factory.mktemp("differential") / "host")
    most = MANY_SESSIONS if request.config.getoption("--long") else SESSIONS
    accounts = [host.add_account(f"pair{number}") for number in range(most // 2)]
    host.start()
    try:
        dovecot = Dovecot(tmp_path_factory.mktemp("dovecot"), free_ports().pop3)
    except OSError as error:
        host.close()
        pytest.skip(str(error))
    waiting = iter(accounts)
    yield lambda: Pair(host, dovecot, next(waiting))
    dovecot.close()
    host.close()


def differences(pairs: Callable[[], Pair], seed: int, count: int) -> Counter[str]:
    found: Counter[str] = Counter()
    pair = pairs()
    for number, session in enumerate(sessions(seed, count), 1):
        try:
            same = pair.compare(session, found)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, session {number}, {session}") from error
        if not same or number % SESSIONS_PER_ACCOUNT == 0:
            pair = pairs()
    return found


def test_sessions(pairs: Callable[[], Pair]) -> None:
    """Some hundred sessions differ in nothing that is not explained."""
    found = differences(pairs, 1, SESSIONS)
    assert set(found) <= {difference.title for difference in KNOWN}


@pytest.mark.long
def test_many_sessions(pairs: Callable[[], Pair]) -> None:
    """Thousands do, and every difference that is explained is still there."""
    found = differences(pairs, 2, MANY_SESSIONS - SESSIONS - SESSIONS_PER_ACCOUNT)
    assert set(found) == {difference.title for difference in KNOWN}


def test_every_difference_is_explained() -> None:
    """Each has its paragraph."""
    text = DOCUMENT.read_text()
    assert [difference.title for difference in KNOWN if f"**{difference.title}**" not in text] == []

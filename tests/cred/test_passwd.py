"""The passwd checker: who gets in, what it costs, and how soon a change of the file counts."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from mailhost.cred import scram
from mailhost.cred.passwd import PasswdChecker
from mailhost.cred.passwd_format import BrokenLine
from mailhost.events import Event, Notice, Trouble
from mailhost.interfaces import IAccounts, IQuotas
from mailhost.refusal import LoginUnavailable

SCRAM = str(scram.make(b"secret", iterations=10))


class House:
    """A passwd file, its checker, and what the operator hears."""

    def __init__(self, path: Path, threads: Any) -> None:
        self.path = path
        self.threads = threads
        self.clock = Clock()
        self.heard: list[Event] = []
        self.write(f"ann@example.test:{SCRAM}", "bob@example.test:{PLAIN}builder", "Zoë@Example.test:{PLAIN}x")
        self.checker = PasswdChecker(
            str(path), in_thread=threads, observer=self.heard.append, seconds=self.clock.seconds
        )

    def write(self, *lines: str) -> None:
        self.path.write_text("".join(f"{line}\n" for line in lines))
        self.path.chmod(0o640)

    def check(self, name: bytes, password: bytes) -> Any:
        """The avatar id, or the error's class; the Deferred itself while there is neither."""
        return outcome(self.checker.requestAvatarId(UsernamePassword(name, password)))

    def has(self, address: str) -> Any:
        return outcome(Deferred.fromCoroutine(self.checker.has_account(address)))

    def calls(self) -> list[str]:
        """What has been run in threads since the last time."""
        calls = self.threads.calls[:]
        self.threads.calls.clear()
        return calls

    def flood(self) -> None:
        """So many questions that an answer need not wait for a look."""
        for _ in range(20):
            self.checker._file.look_is_due()


def outcome(result: Deferred[Any]) -> Any:
    results: list[Any] = []

    def seen(answer: Any) -> Any:
        results.append(answer)
        return answer

    result.addBoth(seen)
    if not results:
        return result
    result.addErrback(lambda failure: None)
    return results[0].type if isinstance(results[0], Failure) else results[0]


@pytest.fixture
def house(tmp_path: Path, threads: Any) -> House:
    return House(tmp_path / "passwd", threads)


class TestPasswords:
    def test_provides_its_interfaces(self, house: House) -> None:
        """A checker, and a list of accounts for an address book."""
        verifyObject(ICredentialsChecker, house.checker)
        verifyObject(IAccounts, house.checker)

    @pytest.mark.parametrize(
        ("name", "password", "avatar_id"),
        [
            (b"ann@example.test", b"secret", b"ann@example.test"),
            (b"ANN@Example.Test", b"secret", b"ann@example.test"),
            (b"bob@example.test", b"builder", b"bob@example.test"),
            ("ZOË@example.test".encode(), b"x", "zoë@example.test".encode()),
            ("zoe\u0308@example.test".encode(), b"x", "zoë@example.test".encode()),
        ],
    )
    def test_right(self, house: House, name: bytes, password: bytes, avatar_id: bytes) -> None:
        """The avatar id is the account's one name, however the client wrote it."""
        assert house.check(name, password) == avatar_id

    @pytest.mark.parametrize(
        ("name", "password"),
        [
            (b"ann@example.test", b"Secret"),
            (b"ann@example.test", b""),
            (b"bob@example.test", b"builder "),
            (b"ann", b"secret"),
            (b"nobody@example.test", b"secret"),
            (b"nobody@example.test", b"builder"),
            (b"", b""),
            (b"\xff\xfe", b"\xff"),
            (b"bob@example.test\x00", b"builder"),
            (b"bob@example.test:{PLAIN}builder", b"builder"),
        ],
    )
    def test_wrong(self, house: House, name: bytes, password: bytes) -> None:
        """Everything else is refused, as twisted.cred says it."""
        assert house.check(name, password) is UnauthorizedLogin

    def test_text(self, house: House) -> None:
        """Foreign protocols give text."""
        credentials: Any = UsernamePassword("bob@example.test", "builder")  # type: ignore[arg-type]
        assert outcome(house.checker.requestAvatarId(credentials)) == b"bob@example.test"

    def test_empty_file(self, house: House) -> None:
        """Nobody gets in, and it still costs a hash to say so."""
        house.write()
        assert house.check(b"ann@example.test", b"secret") is UnauthorizedLogin
        assert house.calls() == ["_read_if_changed", "verify"]

    def test_nobody_never_gets_in(self, house: House) -> None:
        """A name that nobody has is refused with every password that anybody has."""
        for password in (b"secret", b"builder", b"x"):
            assert house.check(b"nobody@example.test", password) is UnauthorizedLogin


class TestCost:
    def test_hashed_in_a_thread(self, house: House) -> None:
        """The first login hashes, there; the reactor's thread never does."""
        house.check(b"ann@example.test", b"secret")
        assert house.calls() == ["_read_if_changed", "verify"]

    def test_known_again(self, house: House) -> None:
        """A client that polls costs one hash, not one each time."""
        for _ in range(5):
            assert house.check(b"ann@example.test", b"secret") == b"ann@example.test"
        assert house.calls().count("verify") == 1

    def test_another_password_is_hashed(self, house: House) -> None:
        """What is remembered helps the right password only; a wrong one costs what it cost before."""
        house.check(b"ann@example.test", b"secret")
        house.calls()
        for _ in range(3):
            assert house.check(b"ann@example.test", b"wrong") is UnauthorizedLogin
        assert house.calls().count("verify") == 3

    def test_refusals_cost_the_same(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        """However a password is kept, and whether there is an account at all: the same steps, as many iterations."""
        house.write(
            f"ann@example.test:{SCRAM}",
            "bob@example.test:{PLAIN}builder",
            f"zoe@example.test:{scram.make(b'x', iterations=30)}",
        )
        house.check(b"ann@example.test", b"secret")
        iterations: list[int] = []
        hashed = hashlib.pbkdf2_hmac

        def counted(name: str, password: bytes, salt: bytes, count: int) -> bytes:
            iterations.append(count)
            return hashed(name, password, salt, count)

        monkeypatch.setattr("hashlib.pbkdf2_hmac", counted)
        for name in (b"ann@example.test", b"bob@example.test", b"zoe@example.test", b"nobody@example.test"):
            house.calls()
            iterations.clear()
            assert house.check(name, b"wrong") is UnauthorizedLogin
            assert house.calls() == ["_read_if_changed", "verify"]
            assert sum(iterations) == 30

    def test_plain_passwords_only(self, house: House) -> None:
        """Then nothing is hashed, for anybody, and no thread is needed for it."""
        house.write("bob@example.test:{PLAIN}builder")
        for name in (b"bob@example.test", b"nobody@example.test"):
            assert house.check(name, b"wrong") is UnauthorizedLogin
        assert house.calls() == ["_read_if_changed"] * 2

    def test_refusals_take_as_long(self, house: House) -> None:
        """Measured, with the iterations that are the default: no more than half as long again, either way."""
        house.write(f"ann@example.test:{scram.make(b'secret')}")
        seconds: dict[bytes, list[float]] = {b"ann@example.test": [], b"nobody@example.test": []}
        for _ in range(5):
            for name, taken in seconds.items():
                begun = time.thread_time()
                house.check(name, b"wrong")
                taken.append(time.thread_time() - begun)
        known, unknown = map(statistics.median, seconds.values())
        assert 2 / 3 < known / unknown < 3 / 2

    def test_plain_needs_no_thread(self, house: House) -> None:
        """While the file is known to be fresh, a plain password is compared on the spot."""
        house.flood()
        assert house.check(b"bob@example.test", b"builder") == b"bob@example.test"
        assert house.calls() == []

    def test_nothing_of_a_password_is_kept(self, house: House) -> None:
        """What is remembered holds neither the password nor its plain hash."""
        house.check(b"ann@example.test", b"secret")
        kept = repr(house.checker._verified).encode() + house.checker._verified["ann@example.test"][1]
        assert b"secret" not in kept
        assert hashlib.blake2b(b"ann@example.test\0secret", digest_size=32).digest() not in kept

    def test_too_many_at_once(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a flood of logins some hash, a bounded number waits, and the rest is told to come back."""
        monkeypatch.setattr("mailhost.cred.passwd._MOST_WAITING", 3)
        house.flood()
        house.threads.held = True
        attempts = [house.check(b"ann@example.test", b"wrong") for _ in range(20)]
        hashing = len(house.calls())
        assert attempts.count(LoginUnavailable) == 20 - hashing - 3
        for _ in range(20):
            house.threads.run()
        answers = [outcome(attempt) for attempt in attempts if isinstance(attempt, Deferred)]
        assert answers == [UnauthorizedLogin] * (hashing + 3)


class TestChanges:
    def test_added_by_hand(self, house: House) -> None:
        """A line added by hand counts at once, for logins and for mail."""
        assert house.check(b"eve@example.test", b"new") is UnauthorizedLogin
        assert house.has("eve@example.test") is False
        with house.path.open("a") as file:
            file.write("eve@example.test:{PLAIN}new\n")
        assert house.has("eve@example.test") is True
        assert house.check(b"eve@example.test", b"new") == b"eve@example.test"
        assert house.heard == [Notice(f"{house.path} read again, 4 accounts")]

    def test_removed(self, house: House) -> None:
        """Who was removed does not get in again, not even with a password that was verified before."""
        house.check(b"ann@example.test", b"secret")
        house.write("bob@example.test:{PLAIN}builder")
        assert house.check(b"ann@example.test", b"secret") is UnauthorizedLogin
        assert "ann@example.test" not in house.checker._verified

    def test_new_password(self, house: House) -> None:
        """The old one ends with the line that held it."""
        house.check(b"ann@example.test", b"secret")
        house.write(f"ann@example.test:{scram.make(b'other', iterations=10)}")
        assert house.check(b"ann@example.test", b"secret") is UnauthorizedLogin
        assert house.check(b"ann@example.test", b"other") == b"ann@example.test"

    @pytest.mark.parametrize("line", [None, f"ann@example.test:{scram.make(b'other', iterations=10)}"])
    def test_changed_while_it_is_verified(self, house: House, line: str | None) -> None:
        """A password that stopped to count while it waited to be hashed does not count."""
        house.flood()
        house.threads.held = True
        login = house.check(b"ann@example.test", b"secret")
        house.threads.held = False
        house.write(*([line] if line else []))
        house.checker._file.look()
        house.threads.run()
        assert outcome(login) is UnauthorizedLogin
        assert house.checker._verified == {}

    def test_new_fields_forget_nothing(self, house: House) -> None:
        """A change of something else costs nobody a hash."""
        house.check(b"ann@example.test", b"secret")
        house.write(f"ann@example.test:{SCRAM}:quota=5G", "bob@example.test:{PLAIN}builder")
        house.calls()
        house.check(b"ann@example.test", b"secret")
        assert house.calls() == ["_read_if_changed"]

    def test_quotas(self, house: House) -> None:
        """An account's own quota, in whatever spelling it is asked for, as the file says it now."""

        def quota(address: str) -> Any:
            return outcome(Deferred.fromCoroutine(house.checker.quota(address)))

        verifyObject(IQuotas, house.checker)
        assert quota("ann@example.test") is None
        assert not house.checker.has_quotas
        house.write("ann@example.test:{PLAIN}x:quota=10/5M", "bob:{PLAIN}x:quota=7")
        house.has("new@example.test")
        assert quota("Ann@Example.test") == (10, 5 << 20)
        assert quota("bob") == (None, 7)
        assert quota("nobody@example.test") is None
        assert house.checker.has_quotas

    def test_broken_line(self, house: House) -> None:
        """The accounts stay, the operator hears file and line once, and no password."""
        house.write("ann@example.test:{PLAIN}hunter2", "bob@example.test:hunter2")
        for _ in range(3):
            assert house.check(b"ann@example.test", b"secret") == b"ann@example.test"
        (trouble,) = house.heard
        assert isinstance(trouble, Trouble)
        assert f"{house.path}, line 2: " in str(trouble.cause)
        assert "hunter2" not in repr(trouble)

    def test_broken_from_the_beginning(self, tmp_path: Path, threads: Any) -> None:
        """Then there is no checker."""
        path = tmp_path / "passwd"
        path.write_text("ann@example.test\n")
        with pytest.raises(BrokenLine, match="passwd, line 1"):
            PasswdChecker(str(path), in_thread=threads)
        with pytest.raises(FileNotFoundError):
            PasswdChecker(str(tmp_path / "none"), in_thread=threads)

    def test_reload(self, house: House) -> None:
        """Who reloads on a signal hears whether it went well."""
        house.write("eve@example.test:{PLAIN}new")
        assert outcome(Deferred.fromCoroutine(house.checker.reload())) is None
        assert house.has("eve@example.test") is True
        house.write("eve@example.test")
        assert outcome(Deferred.fromCoroutine(house.checker.reload())) is BrokenLine

    def test_slow_disk(self, house: House) -> None:
        """While a look is under way a login waits for it, and mail for known addresses does not."""
        house.threads.held = True
        assert house.has("ann@example.test") is True
        login = house.check(b"bob@example.test", b"builder")
        assert not login.called
        house.threads.run()
        assert login.called


class TestAccounts:
    def test_has_account(self, house: House) -> None:
        """By the name that counts, whatever the scheme."""
        for address in ("ann@example.test", "bob@example.test", "zoë@example.test", "Ann@Example.Test"):
            assert house.has(address) is True
        for address in ("eve@example.test", "ann", "@example.test", ""):
            assert house.has(address) is False

    def test_known_costs_no_thread(self, house: House) -> None:
        """A known address is answered from memory; once a second somebody looks, in the background."""
        for _ in range(100):
            house.has("ann@example.test")
        assert house.calls() == []
        house.clock.advance(1)
        for _ in range(100):
            house.has("ann@example.test")
        assert house.calls() == ["_read_if_changed"]

    def test_removed_within_a_second(self, house: House) -> None:
        """Mail for who was removed is refused soon."""
        house.write("bob@example.test:{PLAIN}builder")
        house.clock.advance(1)
        house.has("ann@example.test")
        assert house.has("ann@example.test") is False

    def test_flood_of_unknown(self, house: House) -> None:
        """A thousand unknown addresses in one moment cost twenty looks."""
        assert not any(house.has(f"user{number}@example.test") for number in range(1000))
        assert len(house.calls()) == 20


class TestMode:
    @pytest.mark.parametrize(("mode", "warns"), [(0o640, False), (0o600, False), (0o644, True), (0o646, True)])
    def test_open_to_all(self, house: House, mode: int, warns: bool) -> None:
        """Password hashes that everybody can read are worth a warning, which the host gets that takes the checker over."""
        house.path.chmod(mode)
        checker = PasswdChecker(str(house.path), in_thread=house.threads)
        heard: list[Event] = []
        checker.use(in_thread=house.threads, observer=heard.append)
        assert bool(heard) is warns
        assert all(isinstance(event, Trouble) and str(house.path) in event.what for event in heard)

    def test_relative_path(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        """A daemon changes its directory; the file stays where it was."""
        monkeypatch.chdir(house.path.parent)
        checker = PasswdChecker("passwd", in_thread=house.threads)
        monkeypatch.chdir(os.sep)
        house.write("eve@example.test:{PLAIN}new")
        assert outcome(Deferred.fromCoroutine(checker.has_account("eve@example.test"))) is True

"""How long failures hold up the next logins, and whose."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailhost.cred.throttle import Throttle, network_of

FAR = "192.0.2.7"
NEAR = "198.51.100.1"


class ThrottleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.throttle = Throttle(self.clock)

    def fail_times(self, count: int, account: bytes = b"ann", host: str = FAR) -> None:
        for _ in range(count):
            self.throttle.failed(account, host)

    def test_nobody_has_failed(self) -> None:
        """Then nobody waits."""
        assert self.throttle.seconds(b"ann", FAR) == 0
        self.successResultOf(Deferred.fromCoroutine(self.throttle.turn(b"ann", FAR)))

    def test_doubling(self) -> None:
        """One second after the first failure, twice that after each further one, twenty at most."""
        delays = []
        for _ in range(8):
            self.throttle.failed(b"ann", FAR)
            delays.append(self.throttle.seconds(b"ann", FAR))
        assert delays == [1, 2, 4, 8, 16, 20, 20, 20]

    def test_forgetting(self) -> None:
        """The delay shrinks, and ten minutes after any number of failures it is gone."""
        self.fail_times(100)
        before = self.throttle.seconds(b"ann", FAR)
        self.clock.advance(60)
        assert 0 < self.throttle.seconds(b"ann", FAR) < before
        self.clock.advance(540)
        assert self.throttle.seconds(b"ann", FAR) == 0

    def test_clock_set_back(self) -> None:
        """The reactor's clock is the wall clock; a step back makes no delay longer."""
        self.fail_times(2)
        self.clock.rightNow -= 3600
        assert self.throttle.seconds(b"ann", FAR) == 2

    def test_account_from_elsewhere(self) -> None:
        """Guesses at one account from many networks are slowed by what they have in common."""
        for third in range(5):
            self.throttle.failed(b"ann", f"203.0.{third}.1")
        assert self.throttle.seconds(b"ann", NEAR) == 16
        assert self.throttle.seconds(b"bob", NEAR) == 0

    def test_case_of_the_account(self) -> None:
        """Another spelling is no other account."""
        self.fail_times(3, "ZOË@x".encode())
        assert self.throttle.seconds("zoë@x".encode(), NEAR) == 4

    def test_network(self) -> None:
        """Many accounts tried from one network slow all of it, but ten mistakes there slow nobody."""
        for number in range(10):
            self.throttle.failed(b"user%d" % number, f"192.0.2.{number}")
        assert self.throttle.seconds(b"bob", FAR) == 0
        self.fail_times(3, b"one-more", FAR)
        assert self.throttle.seconds(b"bob", "192.0.2.200") == 4
        assert self.throttle.seconds(b"bob", NEAR) == 0

    def test_success_frees_the_account_only(self) -> None:
        """A guesser with one account of his own cannot wipe his network's record with it."""
        self.fail_times(15, b"ann")
        self.throttle.succeeded(b"mallory", FAR)
        assert self.throttle.seconds(b"mallory", FAR) == 16
        assert self.throttle.seconds(b"ann", FAR) == 20
        self.throttle.succeeded(b"ann", FAR)
        assert self.throttle.seconds(b"ann", FAR) == 16

    def test_owner_is_not_shut_out(self) -> None:
        """From where the account has logged in before, strangers' guesses do not count; failures from there do."""
        self.throttle.succeeded(b"ann", NEAR)
        self.fail_times(10, b"ann", FAR)
        assert self.throttle.seconds(b"ann", FAR) == 20
        assert self.throttle.seconds(b"ann", NEAR) == 0
        self.throttle.failed(b"ann", NEAR)
        assert self.throttle.seconds(b"ann", NEAR) == 1
        self.throttle.succeeded(b"ann", NEAR)
        assert self.throttle.seconds(b"ann", NEAR) == 0

    def test_loopback_is_no_network(self) -> None:
        """A webmail on this machine logs everybody in: only the account counts there."""
        for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1", ""):
            for number in range(50):
                self.throttle.failed(b"%d@%s" % (number, host.encode()), host)
            assert self.throttle.seconds(b"bob", host) == 0
            assert self.throttle.seconds(b"0@" + host.encode(), host) == 1

    def test_memory_is_bounded(self) -> None:
        """However many names and networks are tried; the latest are remembered."""
        throttle = Throttle(self.clock, keys=100)
        for number in range(1000):
            throttle.failed(b"x" * 1000 + b"%d" % number, f"10.{number // 250}.{number % 250}.1")
            throttle.failed(b"%d" % number, "")
            throttle.succeeded(b"%d" % number, f"10.{number // 250}.{number % 250}.1")
        assert len(throttle._accounts._levels) <= 100
        assert len(throttle._networks._levels) <= 100
        assert len(throttle._known) <= 100
        assert all(len(key) <= 255 for key in throttle._accounts._levels if isinstance(key, str))

    def test_waiting_ends(self) -> None:
        """Who waits goes on when the time has come, and leaves nothing behind."""
        self.fail_times(2)
        turn = Deferred.fromCoroutine(self.throttle.turn(b"ann", FAR))
        self.clock.advance(1.9)
        self.assertNoResult(turn)
        self.clock.advance(0.2)
        self.successResultOf(turn)
        assert not self.throttle._waiting


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8::1", "2001:db8:0:0:ffff::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.9", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("nonsense:", "nonsense:", True),
    ],
)
def test_networks(one: str, other: str, same: bool) -> None:
    """/24 and /64 are one place, whichever way an address is written."""
    assert (network_of(one) == network_of(other)) is same

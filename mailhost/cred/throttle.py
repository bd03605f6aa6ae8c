"""
Failed logins slow the next ones: those to the same account, and those from the same network.

An attempt waits *before* it is checked, the right password as long as a wrong one.  Were only the wrong answer held back, a guesser
would hang up on every answer that does not come at once, and lose nothing.  The account's name counts as the client gave it, so
that a name that nobody has is slowed as any other.

A stranger's guessing must not shut an account's owner out: from a network where the account has logged in before, only failures
from there count.  What is kept is bounded, lives in one process, and is forgotten with it.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, OrderedDict
from collections.abc import Hashable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from mailhost.cred import prepare
from mailhost.refusal import LoginUnavailable

# An office or a carrier's gateway stands behind one address: so many mistakes of different people slow nobody.
_FREE_FOR_A_NETWORK = 10

# With the longest delay this lets one guess a second through on each account and from each network.
_WAITING = 20


class Throttle:
    """Counts failures and makes attempts wait.  One for all listeners of a process."""

    def __init__(
        self,
        clock: IReactorTime,
        *,
        first_seconds: float = 1.0,
        most_seconds: float = 20.0,
        forget_seconds: float = 60.0,
        keys: int = 50_000,
    ) -> None:
        """
        @param first_seconds: after one failure; doubled by each further one.
        @param most_seconds: where doubling ends.
        @param forget_seconds: so long after the last failure one is forgotten, and so on.
        @param keys: how many accounts, networks and known pairs of both are remembered; the oldest go first.
        """
        self._clock = clock
        self._keys = keys
        self._accounts = _Failures(clock, first_seconds, most_seconds, forget_seconds, 0, keys)
        self._networks = _Failures(clock, first_seconds, most_seconds, forget_seconds, _FREE_FOR_A_NETWORK, keys)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._waiting: Counter[Hashable] = Counter()

    async def turn(self, account: bytes, host: str) -> None:
        """
        Wait until this attempt may be checked; most need not wait.

        @param account: as the client named it.
        @param host: the client's address, empty for a UNIX socket.
        @raise LoginUnavailable: too many are waiting already for this account or from this network.
        """
        if not self._accounts and not self._networks:
            return
        seconds = self.seconds(account, host)
        if seconds > 0:
            await self._wait(seconds, (self._account_key(account, host), network_of(host)))

    def seconds(self, account: bytes, host: str) -> float:
        """How long an attempt that came now would wait."""
        return max(
            self._accounts.seconds(self._account_key(account, host)),
            self._networks.seconds(network_of(host)),
        )

    def failed(self, account: bytes, host: str) -> None:
        """Unknown account or wrong password."""
        self._accounts.add(self._account_key(account, host))
        network = network_of(host)
        # Behind a loopback address or a UNIX socket stands a webmail or a proxy, for everybody.
        if network:
            self._networks.add(network)

    def succeeded(self, account: bytes, host: str) -> None:
        """The account is free again from here; its network still is what it was."""
        pair = (_folded(account), network_of(host))
        if self._accounts:
            self._accounts.forget(self._account_key(account, host))
            self._accounts.forget(pair)
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > self._keys:
            self._known.popitem(last=False)

    def _account_key(self, account: bytes, host: str) -> Hashable:
        pair = (_folded(account), network_of(host))
        return pair if pair in self._known else pair[0]

    async def _wait(self, seconds: float, keys: tuple[Hashable, str]) -> None:
        if any(key and self._waiting[key] >= _WAITING for key in keys):
            raise LoginUnavailable(cause="too many attempts are waiting")
        self._waiting.update(keys)
        try:
            await deferLater(self._clock, seconds)
        finally:
            self._waiting -= Counter(keys)  # which also drops what has come down to none


class _Failures:
    """A level for each key: one up for each failure, one down in each `forget_seconds`."""

    def __init__(
        self,
        clock: IReactorTime,
        first_seconds: float,
        most_seconds: float,
        forget_seconds: float,
        free: int,
        keys: int,
    ) -> None:
        self._clock = clock
        self._first_seconds = first_seconds
        self._most_seconds = most_seconds
        self._forget_seconds = forget_seconds
        self._free = free
        self._keys = keys
        # Above this level the delay does not grow, and neither does the time to forget.
        self._highest = free + 1 + math.log2(most_seconds / first_seconds)
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._levels)

    def seconds(self, key: Hashable) -> float:
        over = self._level(key) - self._free
        return min(self._most_seconds, self._first_seconds * 2 ** (over - 1)) if over > 0 else 0.0

    def add(self, key: Hashable) -> None:
        self._levels[key] = (min(self._level(key) + 1, self._highest), self._clock.seconds())
        self._levels.move_to_end(key)
        if len(self._levels) > self._keys:
            self._levels.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        self._levels.pop(key, None)

    def _level(self, key: Hashable) -> float:
        level, since = self._levels.get(key, (0.0, 0.0))
        # The reactor's clock is the wall clock, and may be set back.
        age = max(0.0, self._clock.seconds() - since)
        level -= age / self._forget_seconds
        if level <= 0:
            self.forget(key)
            return 0.0
        return level


def network_of(host: str) -> str:
    """
    The network that an address is counted under: /24, or /64 in IPv6, where one customer has at least as much.

    Empty for a loopback address or a UNIX socket.
    """
    if ":" not in host:
        return "" if host.startswith("127.") else host.rpartition(".")[0]
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return network_of(str(address.ipv4_mapped))
    return "" if address.is_loopback else address.packed[:8].hex()


def _folded(account: bytes) -> str:
    """One key for all spellings, and no more of it than is worth remembering."""
    return prepare.name_of(account[:255])

"""What goes wrong on demand, in the way of a test's mail: refusals, deferrals, cut connections, slow answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from mailhost.envelope import Client, Outcome, Parameters, Path
from mailhost.interfaces import IDelivery, IStagedMessage, ITransaction
from mailhost.octets import Undoubler
from mailhost.refusal import SpoolUnavailable, Worded
from mailhost.testing.arrivals import Arrival, Arrivals
from mailhost.testing.messages import is_for

RCPT, CONTENT, END = "RCPT", "content", "end"


@dataclass
class Fault:
    """One thing that goes wrong."""

    at: str
    """`RCPT`, in the middle of the `content`, or at its `end`."""
    address: str | None = None
    """For this forward-path only, as in an inbox's address; None for every one."""
    times: int | None = None
    """How often, None for ever."""
    code: int = 0
    """An SMTP reply code, with a status and a text; 0 refuses nothing."""
    status: str = ""
    text: str = ""
    seconds: float = 0.0
    """How much later the answer comes."""
    after_octets: int = 0
    """How much of the content is taken before the connection is cut."""

    def concerns(self, at: str, forward_paths: Sequence[str]) -> bool:
        address = self.address
        return self.at == at and (address is None or any(is_for(path, address) for path in forward_paths))


class Faults:
    """Those in force; the first that fits is the one that happens."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def clear(self) -> None:
        self._faults.clear()

    def take(self, at: str, forward_paths: Sequence[str]) -> Fault | None:
        for fault in self._faults:
            if fault.concerns(at, forward_paths):
                if fault.times is not None:
                    fault.times -= 1
                    if not fault.times:
                        self._faults.remove(fault)
                return fault
        return None

    async def happen(self, at: str, forward_paths: Sequence[str]) -> None:
        """@raise Worded: what the fault says."""
        fault = self.take(at, forward_paths)
        if fault is None:
            return
        if fault.seconds:
            await deferLater(self._reactor, fault.seconds)
        if fault.code:
            raise Worded(fault.code, fault.status, fault.text)


@dataclass(frozen=True)
class _Watch:
    faults: Faults
    arrivals: Arrivals
    cut: Callable[[Client], None]


@implementer(IDelivery)
class WatchedDelivery:
    """A delivery whose messages are remembered, and go wrong where they are to."""

    def __init__(self, delivery: IDelivery, faults: Faults, arrivals: Arrivals, cut: Callable[[Client], None]) -> None:
        """@param cut: cuts a client's connection."""
        self._delivery = delivery
        self._watch = _Watch(faults, arrivals, cut)

    async def transaction(self, client: Client, reverse_path: Path, parameters: Parameters) -> ITransaction:
        transaction = await self._delivery.transaction(client, reverse_path, parameters)
        return _Transaction(transaction, client, reverse_path, self._watch)


@implementer(ITransaction)
class _Transaction:
    def __init__(self, transaction: ITransaction, client: Client, reverse_path: Path, watch: _Watch) -> None:
        self._transaction = transaction
        self._client = client
        self._reverse_path = reverse_path
        self._watch = watch
        self._forward_paths: list[str] = []

    async def recipient(self, forward_path: Path, parameters: Parameters) -> None:
        await self._watch.faults.happen(RCPT, [forward_path.mailbox])
        await self._transaction.recipient(forward_path, parameters)
        self._forward_paths.append(forward_path.mailbox)

    async def content(self) -> IStagedMessage:
        staged = await self._transaction.content()
        return _Staged(staged, self._client, self._reverse_path.mailbox, self._forward_paths, self._watch)

    def abort(self) -> None:
        self._transaction.abort()


@implementer(IStagedMessage)
class _Staged:
    def __init__(
        self, staged: IStagedMessage, client: Client, reverse_path: str, forward_paths: Sequence[str], watch: _Watch
    ) -> None:
        self.unique_id = staged.unique_id
        self._staged = staged
        self._client = client
        self._reverse_path = reverse_path
        self._forward_paths = forward_paths
        self._watch = watch
        self._cut = watch.faults.take(CONTENT, forward_paths)
        self._undoubler = Undoubler()
        self._plain: list[bytes] = []
        self._octets = 0

    def write(self, octets: bytes) -> Deferred[None] | None:
        self._plain.append(self._undoubler.feed(octets))
        self._octets += len(octets)
        if self._cut is not None and self._octets > self._cut.after_octets:
            self._watch.cut(self._client)
        return self._staged.write(octets)

    async def commit(self) -> Outcome:
        try:
            if self._cut is not None:  # all of it came in one block, but the client is to have no answer
                raise SpoolUnavailable()
            await self._watch.faults.happen(END, self._forward_paths)
        except BaseException:
            self._staged.abort()
            raise
        outcome = await self._staged.commit()
        octets = b"".join(self._plain)
        self._watch.arrivals.add([Arrival(octets, self._reverse_path, path) for path in self._forward_paths])
        return outcome

    def abort(self) -> None:
        self._staged.abort()

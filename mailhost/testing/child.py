"""
The process behind `mailhost.testing.process`: a host, told what to do by lines of JSON on its standard input::

    its first line      {"smtp": [host, port], "submission": [...], "pop3": [...]}
    a request           {"call": "add_account", "arguments": {"address": ..., "password": ...}}
    its answer          {"answer": ...}, or {"error": "text"}

It ends when its standard input does, so none is left behind by a test run that was killed.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from mailhost.testing.in_process import InProcessHost

_CALLS = frozenset({"add_account", "defer", "drop", "refuse", "reset", "slow"})


class Control(LineOnlyReceiver):
    """One request at a time."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 20

    def __init__(self, host: InProcessHost, reactor: Any) -> None:
        self._host = host
        self._reactor = reactor

    def connectionMade(self) -> None:
        host = self._host
        addresses = {"smtp": host.smtp_address, "submission": host.submission_address, "pop3": host.pop3_address}
        self._say(addresses)

    def lineReceived(self, line: bytes) -> None:
        Deferred.fromCoroutine(self._answered(json.loads(line))).addBoth(self._say)

    async def _answered(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"answer": await self._call(request["call"], request["arguments"])}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "arrivals":
            return [_as_json(*arrival) for arrival in await self._host.arrivals.wait(**arguments)]
        if name == "no_faults":
            return self._host.faults.clear()
        if name not in _CALLS:
            raise ValueError(f"no such call: {name}")
        answer = getattr(self._host, name)(**arguments)
        return None if answer is None else await answer

    def _say(self, answer: Any) -> None:
        if isinstance(answer, Failure):
            answer.raiseException()
        self.sendLine(json.dumps(answer).encode())

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._reactor.stop()


def _as_json(octets: bytes, reverse_path: str, forward_path: str) -> list[str]:
    return [b64encode(octets).decode(), reverse_path, forward_path]


def main() -> None:
    from twisted.internet import reactor

    running: Any = reactor
    host = InProcessHost(running)

    async def started() -> None:
        await host.start()
        StandardIO(Control(host, running))

    def failed(failure: Failure) -> None:
        failure.printTraceback()
        running.stop()

    running.callWhenRunning(lambda: Deferred.fromCoroutine(started()).addErrback(failed))
    running.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(host.stop()))
    running.run()


if __name__ == "__main__":
    main()

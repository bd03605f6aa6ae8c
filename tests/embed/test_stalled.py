"""One function that stalls, among many that do not."""

from __future__ import annotations

import smtplib
import time

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailhost.embed import Content, Envelope, MailHost


def send(port: int, reverse_path: str) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.sendmail(reverse_path, ["ann@example.test"], b"Subject: x\r\n\r\n" + b"y" * 70 + b"\r\n")


class StalledTests(TestCase):
    def test_others_go_on(self) -> Deferred[None]:
        """Twenty messages come in while one is stalled, none of them slower than a second; then that one is answered too."""
        stalled: Deferred[None] = Deferred()
        slowest = 0.0

        async def arrived(envelope: Envelope, content: Content) -> None:
            async for _ in content.plain():
                if envelope.reverse_path.local_part == "stalled":
                    await stalled

        async def scenario() -> None:
            nonlocal slowest
            host = MailHost(hostname="mx.example.test", receive=arrived)
            host.listen("smtp", "tcp:0:interface=127.0.0.1", name="in")
            async with host:
                port = host.addresses["in"].port  # type: ignore[attr-defined]
                waiting = deferToThread(send, port, "stalled@far.example")
                for _ in range(20):
                    started = time.monotonic()
                    await deferToThread(send, port, "quick@far.example")
                    slowest = max(slowest, time.monotonic() - started)
                assert not waiting.called
                stalled.callback(None)
                await waiting
            assert slowest < 1, slowest

        return Deferred.fromCoroutine(scenario())

"""
A mail host for tests that block, in a process of its own: for pytest, unittest, and whatever else has no reactor::

    with MailHostProcess() as mail_host:
        mail_host.add_account("ann@example.test", "secret")
        shop.confirm(order, smtp=mail_host.smtp_address)
        (message,) = mail_host.wait_for("ann@example.test")
        assert message["Subject"] == "Your order"

A process, and not a thread, since Twisted has one reactor, which the code under test may be using.  Nothing of Twisted is imported here.
With pytest there is nothing to import at all: a test that has an argument `mail_host` gets one of these.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from base64 import b64decode
from pathlib import Path
from typing import Any, NamedTuple, Self

from mailhost.testing.messages import ReceivedMessage, Wanted, first, nothing_arrived, received

_SOURCES = str(Path(__file__).parent.parent.parent)


class Address(NamedTuple):
    """What `smtplib.SMTP(*address)` takes."""

    host: str
    port: int


class MailHostProcess:
    """
    A host on free ports of 127.0.0.1, with a spool in memory.  Every address takes mail; an account is needed to log in.

    Calls may come from any thread, one at a time.
    """

    def __init__(self) -> None:
        """@raise RuntimeError: it does not start; what it says of that is on standard error."""
        path = os.pathsep.join([_SOURCES, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mailhost.testing.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._lock = threading.Lock()
        addresses = self._line()
        self.smtp_address = Address(*addresses["smtp"])
        """Takes mail from anybody."""
        self.submission_address = Address(*addresses["submission"])
        """Takes mail from accounts, which log in without TLS."""
        self.pop3_address = Address(*addresses["pop3"])

    # -- its life

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Until its process has ended."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def reset(self) -> None:
        """As new: no accounts, no mail, no faults; on the same ports."""
        self._call("reset")

    # -- what tests ask of it

    def add_account(self, address: str, password: str) -> None:
        """An account by which to submit mail and to fetch it."""
        self._call("add_account", address=address, password=password)

    def inbox(self, address: str) -> Inbox:
        """@param address: `user@domain`, or `user` for whatever domain."""
        return Inbox(self, address)

    def messages(self, address: str) -> list[ReceivedMessage]:
        """All that has arrived for an address; POP3 clients that delete mail delete nothing here."""
        return self._arrived(address, 0, 0.0)

    def wait_for(self, address: str, count: int = 1, seconds: float = 5.0) -> list[ReceivedMessage]:
        """
        The messages for an address, in their order, once there are so many.

        @param address: `user@domain`, or `user` for whatever domain.
        @raise NothingArrived: there are fewer when the time is up.
        """
        messages = self._arrived(address, count, seconds)
        if len(messages) < count:
            raise nothing_arrived(address, f"not {count} messages", seconds, messages)
        return messages

    def _arrived(self, address: str, count: int, seconds: float) -> list[ReceivedMessage]:
        arrivals = self._call("arrivals", address=address, count=count, seconds=seconds)
        return [received(b64decode(octets), reverse, forward) for octets, reverse, forward in arrivals]

    # -- what is to go wrong

    def refuse(self, address: str | None = None, *, times: int | None = None, at_end: bool = False) -> None:
        """550 at RCPT, or at the end of content."""
        self._call("refuse", address=address, times=times, at_end=at_end)

    def defer(self, address: str | None = None, *, times: int | None = 1, at_end: bool = False) -> None:
        """451 at RCPT, or at the end of content: once, unless said otherwise, so that a retry succeeds."""
        self._call("defer", address=address, times=times, at_end=at_end)

    def drop(self, address: str | None = None, *, times: int | None = 1, after_octets: int = 0) -> None:
        """Cut the connection in mid-content; nothing of the message is kept."""
        self._call("drop", address=address, times=times, after_octets=after_octets)

    def slow(self, seconds: float, address: str | None = None, *, times: int | None = None) -> None:
        """The answer to the end of content comes so much later."""
        self._call("slow", seconds=seconds, address=address, times=times)

    def no_faults(self) -> None:
        """All is well again."""
        self._call("no_faults")

    # -- how it is told

    def _call(self, name: str, **arguments: Any) -> Any:
        request = json.dumps({"call": name, "arguments": arguments}).encode() + b"\n"
        with self._lock:
            pipe = self._process.stdin
            assert pipe is not None
            pipe.write(request)
            pipe.flush()
            reply = self._line()
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["answer"]

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the mail host's process has ended, status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Inbox:
    """What arrives for one address."""

    def __init__(self, host: MailHostProcess, address: str) -> None:
        self._host = host
        self.address = address

    @property
    def messages(self) -> list[ReceivedMessage]:
        """All that is there now."""
        return self._host.messages(self.address)

    def wait_for(self, subject: Wanted = None, *, seconds: float = 5.0) -> ReceivedMessage:
        """
        The first message that is wanted, once it is there.

        @param subject: a whole subject, a compiled pattern to search for in it, or a function of the message.
        @raise NothingArrived: it is not there when the time is up.
        """
        end = time.monotonic() + seconds
        messages = self.messages
        while (message := first(messages, subject)) is None:
            left = end - time.monotonic()
            if left <= 0:
                raise nothing_arrived(self.address, f"no message {subject or ''}", seconds, messages)
            messages = self._host._arrived(self.address, len(messages) + 1, left)
        return message

"""The examples of asyncio programs, with asyncio in charge."""

from __future__ import annotations

import json
import signal
import smtplib
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

MESSAGE = b"Subject: Help\r\n\r\n.\r\n" + b"x" * 70 + b"\r\n"


def test_asyncio_program(run: Callable[..., Any], send: Callable[..., None]) -> None:
    """asyncio.run is in charge; a coroutine of asyncio's refuses, takes, and makes a sender wait; Ctrl-C ends all of it in order."""
    example = run("asyncio_program.py")
    send(example.ports[2525], "orders@mx.example.test", MESSAGE)
    send(example.ports[2525], "support@mx.example.test", b"Subject: large\r\n\r\n" + b"y" * 78 * 20_000)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(example.ports[2525], "nobody@mx.example.test", MESSAGE)
    example.wait_for_output(f"<bob@far.example> {len(MESSAGE)} octets")
    example.wait_for_output("<bob@far.example> 1560020 octets")
    example.stop(signal.SIGINT)
    assert example.output.rstrip().endswith("KeyboardInterrupt")
    assert "never awaited" not in example.output


def test_aiohttp_tickets(run: Callable[..., Any], send: Callable[..., None]) -> None:
    """Mail starts with the web application, is shown by it, and stops with it."""
    pytest.importorskip("aiohttp")
    example = run("aiohttp_tickets.py")
    send(example.ports[2525], "support@mx.example.test", MESSAGE)
    with urllib.request.urlopen(f"http://127.0.0.1:{example.ports[8080]}/", timeout=10) as page:
        assert json.load(page) == [{"from": "bob@far.example", "subject": "Help"}]
    assert example.stop() == 0
    assert "Traceback" not in example.output

"""Limits on connections hold for a host, not for each of its listeners."""

from __future__ import annotations

from twisted.internet.task import Clock

from mailhost.service import config as configuration
from mailhost.service.assemble import Assembly


def test_all_listeners_count_together() -> None:
    """Also those that a reload makes."""
    document = {
        "hostname": "mx.example.test",
        "domains": ["example.test"],
        "spool": "memory:",
        "checkers": ["memory:ann@example.test:secret"],
        "listen": [{"protocol": "pop3", "endpoint": f"tcp:{port}"} for port in (2110, 2111)],
    }
    config = configuration.from_document(document, source="test", directory="/")
    assembly = Assembly(reactor=Clock(), protocols=frozenset({"pop3"}))
    host = assembly.host(config)
    first, second = (listener.door.factory.census for listener in host.listeners)
    assert first is second
    assert assembly.host(config).listeners[0].door.factory.census is first

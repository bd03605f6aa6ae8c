"""LMTP listeners for a live host."""

from __future__ import annotations

from pathlib import Path

from tests.live.host import Host, free_ports

# The TCP one comes last: when it answers, both do.
_LISTENERS = """
[[listen]]
protocol = "lmtp"
endpoint = "unix:{socket}"

[[listen]]
protocol = "lmtp"
endpoint = "tcp:{port}:interface=127.0.0.1"
"""


def start_with_lmtp(host: Host, socket: Path) -> int:
    """Start a host that also listens for LMTP.  @return: the port on loopback, beside the socket at that path."""
    port = free_ports().smtp
    with open(host.config, "a") as config:
        config.write(_LISTENERS.format(socket=socket, port=port))
    host.begin()
    host.wait_until_up(port)
    return port

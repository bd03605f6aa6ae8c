"""Whether a client takes what is sent to it, however slowly."""

from __future__ import annotations

import array
import fcntl
import termios
from typing import Any


def unacknowledged(transport: Any) -> int:
    """
    Octets on their way that the client's system has not acknowledged: the transport's own and those the system holds (SIOCOUTQ).

    A transport says only when its buffer is empty, and behind that lie megabytes of the system's: over a slow line they take
    minutes.  Two looks at this number tell a slow client from a dead one.

    @return: 0 where nothing can be told: the transport has no socket, or the system no such number.
    """
    while transport is not None and not hasattr(transport, "fileno"):
        transport = getattr(transport, "transport", None)  # TLS lies above the one that has a socket
    held = array.array("i", [0])
    try:
        fcntl.ioctl(transport, termios.TIOCOUTQ, held)
    except (OSError, ValueError, TypeError):
        return 0
    kept = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    return held[0] + kept + getattr(transport, "_tempDataLen", 0)

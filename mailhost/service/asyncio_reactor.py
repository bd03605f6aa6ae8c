"""
Twisted inside an asyncio program: the reactor on the loop that `asyncio.run` has started.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def reactor_on_this_loop() -> AsyncIterator[Any]:
    """
    Install Twisted's reactor on the running loop and start it; gives the reactor.  At the end its threads are stopped.

    Once in a process, since Twisted has one reactor, and on one loop.  The loop, its signal handlers and its end stay asyncio's;
    `reactor.run` and `reactor.stop` are not for such a program, and triggers for the reactor's shutdown are not fired.

    @raise RuntimeError: a reactor is installed already.
    """
    if "twisted.internet.reactor" in sys.modules:
        raise RuntimeError("Twisted's reactor is installed already; it can be put on one loop, once in a process")
    from twisted.internet import asyncioreactor

    asyncioreactor.install(asyncio.get_running_loop())
    from twisted.internet import reactor

    running: Any = reactor
    running.startRunning(installSignalHandlers=False)
    try:
        yield running
    finally:
        # Its threads are no daemons: the process would wait for them.
        running.getThreadPool().stop()

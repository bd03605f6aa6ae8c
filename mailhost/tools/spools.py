"""
How tools come to a spool: as the user whom it belongs to, beside a running host or without one.

Reading needs no started spool.  What changes something starts one, as another process of the same spool.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from mailhost.events import Event, Notice, Trouble
from mailhost.refusal import Refusal
from mailhost.service.config import Config
from mailhost.service.observers import explain
from mailhost.service.spools import make_log_spool
from mailhost.spool.log.spool import LogSpool
from mailhost.tools.accounts import configuration
from mailhost.tools.main import Failed
from mailhost.tools.owner import become_owner

T = TypeVar("T")


class Place(NamedTuple):
    """A log spool that a configuration names."""

    config: Config
    directory: str


def place_of(path: str) -> Place:
    """
    Where a configuration's log spool is or will be; from here on we are its user.

    @param path: of the configuration.
    @raise Failed: its spool is of another kind, or somebody else's.
    """
    config = configuration(path)
    if config.spool.partition(":")[0] != "log" or config.spool_directory is None:
        raise Failed(f'{path}: spool = "{config.spool}": this is for log spools')
    become_owner(config.spool_directory)
    return Place(config, config.spool_directory)


def existing(path: str) -> Place:
    """
    One that is there.

    @raise Failed: as `place_of`, or there is none yet.
    """
    place = place_of(path)
    if not os.path.isdir(os.path.join(place.directory, "segments")):
        raise Failed(f"{place.directory}: there is no spool yet")
    return place


def with_spool(place: Place, work: Callable[[LogSpool], Awaitable[T]]) -> T:
    """
    Start a spool, do something, stop it.

    @raise Failed: it could not be done; what the spool itself has to tell goes before it.
    """
    outcome: list[T | Exception] = []
    told: list[str] = []

    def observe(event: Event) -> None:
        if isinstance(event, Trouble | Notice):
            told.append(event.what)

    async def main(reactor: Any) -> None:
        spool = make_log_spool(*place, reactor=reactor, observer=observe)
        try:
            await spool.start()
            try:
                outcome.append(await work(spool))
            finally:
                await spool.stop()
        except (Refusal, OSError, sqlite3.Error, Failed) as error:
            outcome.append(error)

    try:
        react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    except SystemExit as leaving:  # how react ends, also when all went well
        if leaving.code:
            raise
    result = outcome[-1]
    if isinstance(result, Failed):
        raise result
    if isinstance(result, Exception):
        raise Failed("\n".join([*told, explain(result) if isinstance(result, Refusal) else str(result)]))
    return result

"""
What an operator does to a maildrop, while the host runs or not: the spool is opened beside it, as another process of the same spool.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from mailhost.delivery.address_book import canonical_domain, canonical_local_part
from mailhost.events import unobserved
from mailhost.interfaces import ISpool
from mailhost.refusal import NoSuchMaildrop, Refusal
from mailhost.service.config import Config
from mailhost.service.observers import explain
from mailhost.service.spools import make_spool
from mailhost.tools.main import Failed
from mailhost.tools.owner import become_owner


def remove(config: Config, address: str) -> str | None:
    """
    Remove an address's maildrop and all mail in it.

    @return: what was done, for the operator; None if there was no maildrop.
    @raise Failed: it could not be.
    """
    name = _maildrop_of(address)
    return "removed its mail" if _with_spool(config, name, lambda spool: spool.remove(name)) else None


def set_aside(config: Config, address: str) -> str | None:
    """
    Rename an address's maildrop to what no address can be, so that nobody who gets the address later inherits the mail.

    @return: as `remove` does.
    @raise Failed: it could not be.
    """
    name = _maildrop_of(address)
    aside = f"removed/{name}/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    done = _with_spool(config, name, lambda spool: spool.rename(name, aside))
    return f"kept its mail, as the maildrop {aside}" if done else None


def _maildrop_of(address: str) -> str:
    local_part, _, domain = address.rpartition("@")
    return f"{canonical_local_part(local_part)}@{canonical_domain(domain)}"


def _with_spool(config: Config, name: str, work: Callable[[ISpool], Awaitable[None]]) -> bool:
    """
    Do something to a maildrop.

    @return: whether there was one.
    """
    directory = config.spool_directory
    if directory is None:
        return False
    become_owner(directory)
    outcome: list[bool | Exception] = []

    async def main(reactor: Any) -> None:
        try:
            outcome.append(await _done(make_spool(config, reactor=reactor, observer=unobserved), name, work))
        except Refusal as refusal:
            outcome.append(refusal)

    try:
        react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    except SystemExit as leaving:  # how react ends, also when all went well
        if leaving.code:
            raise
    (result,) = outcome
    if isinstance(result, Exception):
        raise Failed(f"the mail of {name} is as it was: {explain(result)}; try again")
    return result


async def _done(spool: ISpool, name: str, work: Callable[[ISpool], Awaitable[None]]) -> bool:
    await spool.start()
    try:
        if not await spool.exists(name):
            return False
        await work(spool)
    except NoSuchMaildrop:
        return False
    finally:
        await spool.stop()
    return True

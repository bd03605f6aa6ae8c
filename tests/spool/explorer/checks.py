"""What is in a spool, and whether that is what was promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mailhost.interfaces import IContent, IMaildrop, ISpool
from mailhost.octets import Measure
from mailhost.refusal import Refusal
from tests.spool.explorer.promises import Deletion, Ledger, Maildrop, Message, Promises, Said

_BLOCK_OCTETS = 3000


class Wrong(Exception):
    """What a client would see is not right in itself."""


class Seen(NamedTuple):
    """One message as a POP3 client gets it."""

    unique_id: str
    octets: int
    wire: bytes


Contents = Mapping[str, list[Seen]]
"""Maildrop to messages, in the order of their numbers."""


async def look(spool: ISpool) -> Contents:
    """
    All that is in a spool.

    @raise Wrong: it contradicts itself, or cannot be read.
    """
    names = [name async for name in spool.maildrops()]
    if len(set(names)) < len(names):
        raise Wrong(f"a name stands twice among {names}")
    found = {}
    for name in sorted(names):
        try:
            found[name] = await _look_into(spool, name)
        except Refusal as refusal:
            raise Wrong(f"{name}: {type(refusal).__name__} {refusal.cause}") from refusal
    return found


async def _look_into(spool: ISpool, name: str) -> list[Seen]:
    maildrop = await spool.open_maildrop(name, 0)
    try:
        return await _messages(maildrop, name)
    finally:
        maildrop.release()


async def _messages(maildrop: IMaildrop, name: str) -> list[Seen]:
    listing = await maildrop.listing()
    if tuple(maildrop.totals) != (len(listing.octets), sum(listing.octets)):
        raise Wrong(f"{name}: totals {tuple(maildrop.totals)}, listed {list(listing.octets)}")
    seen = []
    for index, unique_id in enumerate(listing.unique_ids):
        content = await maildrop.content(index + 1)
        wire = await _read(content)
        measure = Measure()
        measure.feed(wire)
        measured = (measure.octets, measure.wire_octets, measure.header_octets)
        said = (content.octets, content.wire_octets, content.header_octets)
        if said != measured or listing.octets[index] != content.octets:
            raise Wrong(f"{name}: {unique_id} says {said}, is listed with {listing.octets[index]}, has {measured}")
        seen.append(Seen(unique_id, content.octets, wire))
    return seen


async def _read(content: IContent) -> bytes:
    octets = b""
    while block := await content.read(len(octets), _BLOCK_OCTETS):
        octets += block
    return octets


def broken(promises: Promises, contents: Contents) -> list[str]:
    """@return: a sentence for each promise that was not kept."""
    return [
        *_names_broken(promises, contents),
        *_lists_broken(promises, contents),
        *_messages_broken(promises, contents),
    ]


def found_as(maildrop: Maildrop, contents: Contents) -> list[str]:
    """The names under which a maildrop is there."""
    return sorted(name for name in maildrop.names if name is not None and name in contents)


def settle(ledger: Ledger, contents: Contents) -> None:
    """Nobody will answer any more what was not answered: what can be seen now is what has become of it, for good."""
    for message in list(ledger.now.messages.values()):
        if message.said is Said.NOTHING:
            found = [found_as(ledger.now.maildrops[number], contents) for number in message.maildrops]
            seen = {seen.unique_id for names in found for name in names for seen in contents[name]}
            ledger.answered(message.unique_id, Said.YES if message.unique_id in seen else Said.NO)
    for number, maildrop in list(ledger.now.maildrops.items()):
        names = found_as(maildrop, contents)
        ledger.may_be_named(number, *(names or [None]))
        listed = {seen.unique_id for name in names for seen in contents[name]}
        if maildrop.deletions and maildrop.deletions[-1].said is Said.NOTHING:
            ledger.deleted(number, Said.NO if maildrop.deletions[-1].unique_ids & listed else Said.YES)


def _names_broken(promises: Promises, contents: Contents) -> Iterator[str]:
    known = set()
    for maildrop in promises.maildrops.values():
        found = found_as(maildrop, contents)
        known.update(found)
        if len(found) > 1:
            yield f"one maildrop has the names {found}"
        if not found and None not in maildrop.names:
            yield f"no maildrop has the name {sorted(map(str, maildrop.names))}"
    for name in contents.keys() - known:
        yield f"nobody made a maildrop {name}"


def _lists_broken(promises: Promises, contents: Contents) -> Iterator[str]:
    """Whatever is in a maildrop: belongs there, once, whole, in order."""
    order = {unique_id: place for place, unique_id in enumerate(promises.messages)}
    for number, maildrop in promises.maildrops.items():
        for name in found_as(maildrop, contents):
            unique_ids = [seen.unique_id for seen in contents[name]]
            for unique_id, times in Counter(unique_ids).items():
                if times > 1:
                    yield f"{name}: {unique_id} is there {times} times"
            known = [order[unique_id] for unique_id in unique_ids if unique_id in order]
            if known != sorted(known):
                yield f"{name}: the order has changed"
            for seen in contents[name]:
                yield from _content_broken(promises.messages.get(seen.unique_id), number, name, seen)


def _content_broken(message: Message | None, number: int, name: str, seen: Seen) -> Iterator[str]:
    if message is None:
        yield f"{name}: nobody sent {seen.unique_id}"
    elif number not in message.maildrops:
        yield f"{name}: {seen.unique_id} was not sent here"
    elif seen.wire != message.maildrops[number] + message.content:
        yield f"{name}: {seen.unique_id} has other octets than it was sent with"


def _messages_broken(promises: Promises, contents: Contents) -> Iterator[str]:
    listed = {
        number: {seen.unique_id for name in found_as(maildrop, contents) for seen in contents[name]}
        for number, maildrop in promises.maildrops.items()
        if found_as(maildrop, contents)
    }
    for message in promises.messages.values():
        there = {number: message.unique_id in listed[number] for number in message.maildrops if number in listed}
        undeleted = {
            is_there for number, is_there in there.items() if not promises.is_deleting(number, message.unique_id)
        }
        if message.said is Said.NO and any(there.values()):
            yield f"{message.unique_id} was refused and is there"
        elif message.said is Said.NOTHING and len(undeleted) > 1:
            yield f"{message.unique_id} was not answered and is in some of its maildrops only"
        elif message.said is Said.YES:
            for number, is_there in there.items():
                yield from _presence_broken(message.unique_id, promises.maildrops[number], is_there)
    for number, unique_ids in listed.items():
        yield from _deletions_broken(promises.maildrops[number].deletions, unique_ids)


def _presence_broken(unique_id: str, maildrop: Maildrop, is_there: bool) -> Iterator[str]:
    said = [deletion.said for deletion in maildrop.deletions if unique_id in deletion.unique_ids]
    if Said.YES in said and is_there:
        yield f"{unique_id} was deleted in {maildrop.names} and is there"
    if not is_there and Said.YES not in said and Said.NOTHING not in said:
        yield f"{unique_id} was acknowledged and is not in {maildrop.names}"


def _deletions_broken(deletions: list[Deletion], listed: set[str]) -> Iterator[str]:
    for deletion in deletions:
        others = frozenset().union(*(other.unique_ids for other in deletions if other is not deletion))
        alone = deletion.unique_ids - others
        if deletion.said is Said.NOTHING and alone & listed not in (set(), alone):
            yield f"a deletion that was not answered has removed some of {sorted(deletion.unique_ids)} only"

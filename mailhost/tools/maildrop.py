"""`mailhost maildrop`: what is in the maildrops, and how mail comes in from other programs and goes out to them."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from email.parser import BytesHeaderParser
from email.policy import default
from typing import Any

from mailhost.delivery.address_book import canonical_domain, canonical_local_part
from mailhost.octets import Undoubler
from mailhost.refusal import NoSuchMaildrop
from mailhost.spool.files import Files
from mailhost.spool.log.inspection import pinned, reading_index, unwatched
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.spool import LogSpool
from mailhost.spool.log.undelete import Deleted
from mailhost.tools import exporting, importing
from mailhost.tools.accounts import configuration
from mailhost.tools.exporting import Outgoing, Snapshot
from mailhost.tools.main import Failed
from mailhost.tools.mbox import read_mbox
from mailhost.tools.progress import Bar
from mailhost.tools.report import show
from mailhost.tools.sources import Incoming, folders_of, is_maildir, read_maildir
from mailhost.tools.spools import Place, existing, place_of, with_spool

_HEADER_OCTETS = 64 * 1024


def named(config: str, text: str) -> str:
    """
    The name of the maildrop that an operator means: an address as people write it, an account without its domain, or a name as it is.

    @param config: the configuration's path.
    """
    if "/" in text:  # one that was set aside
        return text
    if "@" not in text:
        text = f"{text}@{configuration(config).domains[0]}"
    local_part, _, domain = text.rpartition("@")
    return f"{canonical_local_part(local_part)}@{canonical_domain(domain)}"


def _done(place: Place, name: str, work: Callable[[LogSpool], Coroutine[Any, Any, Any]]) -> Any:
    """@raise Failed: also when there is no maildrop of this name."""

    async def known(spool: LogSpool) -> Any:
        try:
            return await work(spool)
        except NoSuchMaildrop:
            raise Failed(f"there is no maildrop {name}") from None

    return with_spool(place, known)


# ------------------------------------------------------------------------------------------------------- what is there


def list_maildrops(parsed: argparse.Namespace) -> int:
    layout = Layout(Files(), existing(parsed.config).directory)
    query = "SELECT name, messages, octets FROM maildrops WHERE name IS NOT NULL ORDER BY name"
    try:
        with reading_index(layout) as index:
            rows = index.execute(query).fetchall()
    except sqlite3.Error as error:
        raise Failed(f"{layout.index}: {error}; `mailhost spool rebuild-index` makes it anew") from None
    found = [{"maildrop": name, "messages": messages, "octets": octets} for name, messages, octets in rows]
    lines = [f"{messages:8} messages {octets:14} octets  {name}" for name, messages, octets in rows]
    show({"maildrops": found}, lines, as_json=parsed.json)
    return 0


def show_maildrop(parsed: argparse.Namespace) -> int:
    name = named(parsed.config, parsed.maildrop)

    async def look(spool: LogSpool) -> tuple[list[dict[str, Any]], list[str]]:
        snapshot = Snapshot(spool, name)
        found = [await _described(message) async for message in snapshot.messages(unwatched)]
        return found, snapshot.damaged

    place = existing(parsed.config)
    with pinned(Files(), Layout(Files(), place.directory)):
        found, damaged = _done(place, name, look)
    lines = [
        f"{one['number']:6} {one['unique_id']} {one['time']} {one['octets']:9} <{one['reverse_path']}> {one['subject']}"
        for one in found
    ] + [f"damaged: {unique_id}" for unique_id in damaged]
    show({"maildrop": name, "messages": found, "damaged": damaged}, lines, as_json=parsed.json)
    return 1 if damaged else 0


async def _described(message: Outgoing) -> dict[str, Any]:
    head = await message.content.read(0, min(message.content.header_octets, _HEADER_OCTETS))
    return {
        "number": message.number,
        "unique_id": message.unique_id,
        "time": _when(message.time),
        "octets": message.octets,
        "reverse_path": message.reverse_path.mailbox,
        "subject": _subject(Undoubler().feed(head)),
        "flags": message.flags,
    }


def _when(microseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(microseconds / 1_000_000))


def _subject(header: bytes) -> str:
    """As people read it; it comes from anywhere, so nothing in it reaches a terminal that is not text."""
    try:
        subject = str(BytesHeaderParser(policy=default).parsebytes(header).get("Subject", ""))
    except Exception:  # the library's parser fails on some of what mail brings
        return ""
    return "".join(letter if letter.isprintable() else " " for letter in subject)


# ----------------------------------------------------------------------------------------------------- names and mail


def rename(parsed: argparse.Namespace) -> int:
    old, new = named(parsed.config, parsed.maildrop), named(parsed.config, parsed.new)
    _done(existing(parsed.config), old, lambda spool: spool.rename(old, new))
    show({"maildrop": new, "was": old}, [f"{old} is {new} now"], as_json=parsed.json)
    return 0


def remove(parsed: argparse.Namespace) -> int:
    name = named(parsed.config, parsed.maildrop)
    if not parsed.yes:
        _ask(f"Remove the maildrop {name} and all mail in it?")
    _done(existing(parsed.config), name, lambda spool: spool.remove(name))
    show({"removed": name}, [f"removed {name} and its mail"], as_json=parsed.json)
    return 0


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise Failed("this cannot be undone: say --yes; nothing was changed")
    if input(f"{question} yes or no: ").strip().lower() != "yes":
        raise Failed("nothing was changed")


def undelete(parsed: argparse.Namespace) -> int:
    name = named(parsed.config, parsed.maildrop)

    async def bring_back(spool: LogSpool) -> tuple[list[Deleted], list[str]]:
        there = await spool.deleted(name)
        wanted = [one.unique_id for one in there] if parsed.all else parsed.unique_ids
        unknown = set(wanted) - {one.unique_id for one in there}
        if unknown:
            raise Failed(f"{name} has no deleted message {min(unknown)} that can still be had; nothing was done")
        return there, await spool.undelete(name, wanted)

    there, new = _done(existing(parsed.config), name, bring_back)
    if parsed.all or parsed.unique_ids:
        show({"maildrop": name, "unique_ids": new}, [f"{name}: {len(new)} messages are back"], as_json=parsed.json)
    else:
        found = [{**one._asdict(), "time": _when(one.time), "deleted": _when(one.deleted)} for one in there]
        lines = [f"{one.unique_id} {_when(one.time)} {one.octets:9}  deleted {_when(one.deleted)}" for one in there]
        show({"maildrop": name, "deleted": found}, lines, as_json=parsed.json)
    return 0


# ---------------------------------------------------------------------------------------------------- in from elsewhere


def import_mail(parsed: argparse.Namespace) -> int:
    name = named(parsed.config, parsed.maildrop)
    source = os.path.abspath(parsed.source)
    place = place_of(parsed.config)
    messages = _read(source, parsed.kind)

    async def bring(spool: LogSpool) -> importing.Imported:
        with _alone(place.directory), Bar("import") as bar:
            return await importing.bring(spool, name, messages, bar)

    result = with_spool(place, bring)
    left = folders_of(source) if is_maildir(source) else []
    lines = [f"{name}: {result.added} messages added, {result.known} known already"]
    if left:
        lines.append(f"left out, being mailboxes of their own: {', '.join(left)}")
    show({"maildrop": name, **result._asdict(), "folders_left_out": left}, lines, as_json=parsed.json)
    return 0


def _read(source: str, kind: str) -> list[Incoming]:
    if is_maildir(source):
        return read_maildir(source)
    if os.path.isdir(source):
        raise Failed(f"{source}: neither a Maildir, which has new and cur in it, nor an mbox file")
    with Bar("read") as bar:
        return read_mbox(source, kind, bar)


@contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Two imports at once would each miss what the other is adding."""
    files = Files()
    fd = files.open_lock(os.path.join(directory, "locks", "import"))
    try:
        if not files.lock(fd):
            raise Failed("another import is under way; try again when it has ended")
        yield
    finally:
        files.close(fd)


def export_mail(parsed: argparse.Namespace) -> int:
    name = named(parsed.config, parsed.maildrop)
    target = os.path.abspath(parsed.target)
    write = exporting.to_mbox if parsed.format == "mbox" else exporting.to_maildir

    async def give(spool: LogSpool) -> exporting.Exported:
        with Bar("export") as bar:
            return await write(spool, name, target, bar)

    place = existing(parsed.config)
    with pinned(Files(), Layout(Files(), place.directory)):
        result: exporting.Exported = _done(place, name, give)
    lines = [f"{target}: {result.written} messages"]
    lines += [f"left out, damaged: {unique_id}" for unique_id in result.damaged]
    show({"maildrop": name, "target": target, **result._asdict()}, lines, as_json=parsed.json)
    return 1 if result.damaged else 0


VERBS = {
    "list": list_maildrops,
    "show": show_maildrop,
    "rename": rename,
    "remove": remove,
    "undelete": undelete,
    "import": import_mail,
    "export": export_mail,
}

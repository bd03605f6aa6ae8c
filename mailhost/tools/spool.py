"""`mailhost spool`: what state the spool is in, and how to put it right."""

from __future__ import annotations

import argparse
import os
import sqlite3
from collections.abc import Iterator
from typing import Any

from mailhost.events import Event, Trouble
from mailhost.refusal import Refusal
from mailhost.service.observers import explain
from mailhost.spool.files import Files
from mailhost.spool.log import inspection, repair
from mailhost.spool.log.findings import Lost, Report
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.rebuilding import rebuild
from mailhost.spool.log.verify import verify
from mailhost.tools.main import Failed
from mailhost.tools.progress import Bar
from mailhost.tools.report import octets_text, show
from mailhost.tools.spools import Place, existing, with_spool

# -------------------------------------------------------------------------------------------------------------- status


def status(parsed: argparse.Namespace) -> int:
    found = state_of(Files(), existing(parsed.config).directory)
    show(found, _status_lines(found), as_json=parsed.json)
    return 0 if found["index"] == "good" else 1


def state_of(files: Files, directory: str) -> dict[str, Any]:
    """What `status` tells, without reading a segment."""
    layout = Layout(files, directory)
    state = "good"
    known: inspection.Positions = {}
    counts: dict[str, int] = {}
    try:
        with inspection.reading_index(layout) as index:
            known = inspection.positions(index)
            counts = {name: index.execute(query).fetchone()[0] for name, query in _COUNTS.items()}
    except sqlite3.Error as error:
        state = str(error)
    segments = inspection.segments(files, layout, known)
    return {
        "spool": directory,
        "index": state,
        "segments": len(segments),
        "active": sum(segment.held for segment in segments),
        "not_taken_over": sum(not segment.sealed and not segment.held for segment in segments),
        "octets": sum(segment.octets for segment in segments),
        **counts,
        "staged": len(files.names(layout.staging)),
        "in_quarantine": len(files.names(layout.quarantine)),
        "free_octets": files.free_octets(directory),
    }


_COUNTS = {
    "live_octets": "SELECT coalesce(sum(live), 0) FROM segments",
    "maildrops": "SELECT count(*) FROM maildrops WHERE name IS NOT NULL",
    "messages": "SELECT coalesce(sum(messages), 0) FROM maildrops",
    "deleted": "SELECT count(*) FROM deletions",
}


def _status_lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"spool       {found['spool']}"
    yield f"index       {found['index']}"
    yield f"segments    {found['segments']} of {octets_text(found['octets'])}, {found['active']} of them being written"
    if found["not_taken_over"]:
        yield f"            {found['not_taken_over']} left by a host that did not stop; the next start takes them over"
    if "messages" in found:
        yield f"maildrops   {found['maildrops']} with {found['messages']} messages"
        yield f"live        {octets_text(found['live_octets'])}, a message counted for each maildrop it is in"
    yield f"staged      {found['staged']} large messages on their way in"
    yield f"quarantine  {found['in_quarantine']} files"
    yield f"free        {octets_text(found['free_octets'])} on this file system"


# -------------------------------------------------------------------------------------------------- verify and repair


def run_verify(parsed: argparse.Namespace) -> int:
    report = _verified(existing(parsed.config).directory)
    show(_as_json(report), _report_lines(report), as_json=parsed.json)
    return 0 if report.is_good else 1


def _verified(directory: str) -> Report:
    try:
        with Bar("verify") as bar:
            return verify(Files(), directory, bar)
    except OSError as error:
        raise Failed(f"{directory}: {error}") from None


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "good": report.is_good,
        "segments": report.segments,
        "octets": report.octets,
        "records": report.records,
        "messages": report.messages,
        "waiting": report.waiting,
        "torn_octets": report.torn,
        "damaged": [damage._asdict() for damage in report.damaged],
        "lost": [_lost_as_json(lost) for lost in report.lost],
        "forgotten_deletions": len(report.forgotten),
        "unstated_names": len(report.unstated),
        "disagreements": report.disagreements,
    }


def _lost_as_json(lost: Lost) -> dict[str, Any]:
    return {**lost._asdict(), "id": f"{lost.id:016x}"}


def _report_lines(report: Report) -> Iterator[str]:
    yield (
        f"read {report.records} records in {report.segments} segments, {octets_text(report.octets)};"
        f" {report.messages} of them are messages"
    )
    if report.waiting or report.torn:
        yield (
            f"not in the index yet: {report.waiting} records, and {report.torn} octets that no client was told yes for;"
            " the next start sees to both"
        )
    for damage in report.damaged:
        kept = ", in quarantine" if damage.quarantined else ""
        yield f"damaged: segment {damage.segment} from {damage.start} to {damage.stop}{kept}"
    for lost in report.lost:
        yield f"lost: {lost.maildrop} message {lost.unique_id}, {lost.octets} octets"
    if report.forgotten:
        yield f"deletions that only the index knows: {len(report.forgotten)}"
    if report.unstated:
        yield f"names that only the index knows: {len(report.unstated)}"
    yield from report.disagreements
    if report.needs_repair:
        yield "`mailhost spool repair` puts what is damaged aside and goes on without it"
    elif report.disagreements:
        yield "`mailhost spool rebuild-index` makes the index anew from the segments, which are good"
    else:
        yield "all is well"


def run_repair(parsed: argparse.Namespace) -> int:
    place = existing(parsed.config)
    before = _verified(place.directory)
    listed = None
    if before.needs_repair:
        listed = _repair(place, before)
    after = _verified(place.directory) if before.needs_repair else before
    found = {"repaired": before.needs_repair, "found": _as_json(before), "left": _as_json(after), "list": listed}
    show(found, _repair_lines(before, after, listed), as_json=parsed.json)
    return 0 if after.is_good else 1


def _repair(place: Place, report: Report) -> str | None:
    """@return: where what was lost is listed, if anything was."""
    files = Files()
    layout = Layout(files, place.directory)
    try:
        with inspection.pinned(files, layout):
            listed = repair.set_aside(files, layout, report)
            if os.path.exists(layout.index):
                repair.unlist(layout, report.lost)
                repair.forget_missing_segments(files, layout)
    except (OSError, sqlite3.Error) as error:
        raise Failed(f"{place.directory}: {error}") from None
    entries = repair.restatements(report)
    if entries:
        with_spool(place, lambda spool: spool.restate(entries))
    return listed


def _repair_lines(before: Report, after: Report, listed: str | None) -> Iterator[str]:
    if not before.needs_repair:
        yield "nothing is damaged"
    for damage in before.damaged:
        yield f"in quarantine: segment {damage.segment} from {damage.start} to {damage.stop}"
    for lost in before.lost:
        yield f"lost: {lost.maildrop} message {lost.unique_id}, {lost.octets} octets"
    if before.forgotten or before.unstated:
        yield f"written down anew: {len(before.forgotten)} deletions, {len(before.unstated)} names"
    if listed:
        yield f"this list is in {listed}"
    if not after.is_good:
        yield from after.disagreements
        yield "`mailhost spool rebuild-index` makes the index anew from the segments"


# -------------------------------------------------------------------------------------------------------- the index


def run_rebuild_index(parsed: argparse.Namespace) -> int:
    directory = existing(parsed.config).directory
    told: list[str] = []

    def tell(event: Event) -> None:
        if isinstance(event, Trouble):
            told.append(event.what)

    try:
        with Bar("rebuild-index") as bar:
            counts = rebuild(directory, tell, bar)
    except Refusal as refusal:
        raise Failed(explain(refusal)) from None
    except (OSError, sqlite3.Error) as error:
        raise Failed(f"{directory}: {error}") from None
    lines = [*told, f"the index is new: {counts.maildrops} maildrops with {counts.messages} messages"]
    show({**counts._asdict(), "told": told}, lines, as_json=parsed.json)
    return 0


# ---------------------------------------------------------------------------------------------------------- compaction


def run_compact(parsed: argparse.Namespace) -> int:
    gain = with_spool(existing(parsed.config), lambda spool: spool.compact())
    line = f"{gain.segments} segments are gone, {octets_text(gain.octets)} are free again"
    show(gain._asdict(), [line], as_json=parsed.json)
    return 0


VERBS = {
    "status": status,
    "verify": run_verify,
    "repair": run_repair,
    "rebuild-index": run_rebuild_index,
    "compact": run_compact,
}

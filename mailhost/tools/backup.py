"""`mailhost backup` and `mailhost restore`."""

from __future__ import annotations

import argparse
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from mailhost.refusal import Refusal
from mailhost.service.observers import explain
from mailhost.spool.files import Files
from mailhost.spool.log import backup, restore
from mailhost.spool.log.backup import Manifest, Taken, Unusable
from mailhost.spool.log.rebuilding import rebuild
from mailhost.tools.main import Failed
from mailhost.tools.progress import Bar
from mailhost.tools.report import octets_text, show
from mailhost.tools.spools import existing, place_of


def run_backup(parsed: argparse.Namespace) -> int:
    target = os.path.abspath(parsed.directory)
    if parsed.list:
        return _list(target, as_json=parsed.json)
    if parsed.keep is not None and parsed.keep < 1:
        raise Failed("--keep: at least 1, which is this backup")
    spool = existing(parsed.config).directory
    with _in_words(), Bar("backup") as bar:
        taken = backup.take(Files(), spool, target, bar, parsed.keep)
    show({"directory": target, **taken._asdict()}, _taken_lines(target, taken), as_json=parsed.json)
    return 1 if taken.short else 0


def _taken_lines(target: str, taken: Taken) -> Iterator[str]:
    yield (
        f"{target}: {taken.manifest}, {taken.segments} segments of {octets_text(taken.octets)},"
        f" {octets_text(taken.copied)} of it new"
    )
    for name in taken.short:
        yield f"damaged: segment {name} is shorter than the index says; `mailhost spool verify` tells more"


def _list(target: str, *, as_json: bool) -> int:
    with _in_words():
        found = [backup.read_manifest(target, name) for name in backup.manifests(target)]
    document = [{"manifest": one.name, "segments": len(one.segments), "octets": one.octets} for one in found]
    lines = [f"{one.name}  {len(one.segments)} segments of {octets_text(one.octets)}" for one in found]
    show({"directory": target, "backups": document}, lines, as_json=as_json)
    return 0


def run_restore(parsed: argparse.Namespace) -> int:
    source = os.path.abspath(parsed.directory)
    spool = place_of(parsed.config).directory
    with _in_words():
        manifest = _chosen(source, parsed.manifest)
        if parsed.check:
            return _check(source, manifest, as_json=parsed.json)
        with Bar("restore") as bar:
            restore.restore(Files(), source, manifest, spool, bar)
        with Bar("index") as bar:
            rebuilt = rebuild(spool, lambda _: None, bar)
    found = {"spool": spool, "manifest": manifest.name, **rebuilt._asdict()}
    line = f"{spool}: {rebuilt.maildrops} maildrops with {rebuilt.messages} messages, as of {manifest.name}"
    show(found, [line], as_json=parsed.json)
    return 0


def _chosen(source: str, name: str | None) -> Manifest:
    """The one that was asked for, or the latest."""
    if name is None:
        names = backup.manifests(source)
        if not names:
            raise Unusable(f"{source}: there is no backup here")
        name = names[-1]
    return backup.read_manifest(source, name if name.endswith(".json") else f"{name}.json")


def _check(source: str, manifest: Manifest, *, as_json: bool) -> int:
    with Bar("check") as bar:
        restore.check(source, manifest, bar)
    found = {"directory": source, "manifest": manifest.name, "good": True}
    show(found, [f"{manifest.name}: all {len(manifest.segments)} segments are whole"], as_json=as_json)
    return 0


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except Unusable as error:
        raise Failed(str(error)) from None
    except Refusal as refusal:
        raise Failed(explain(refusal)) from None
    except (OSError, sqlite3.Error) as error:
        raise Failed(str(error)) from None


VERBS = {"backup": run_backup, "restore": run_restore}

"""
Backups: plain files, taken while the host runs, each made whole by one manifest.

    BACKUP/segments/<id>.seg                copies; they only ever grow, as segments do
    BACKUP/manifests/<number>-<time>.json   one for each backup: every segment, how many of its octets belong, their SHA-256
    BACKUP/lock

What a segment holds up to its synced end never changes, so a copy is made once and later backups add what has grown.  Older manifests
stay true: theirs is the beginning of the same files.

**One state.**  Segments are pinned against compaction.  Those that are being written are copied last: first each as far as whole
records stand in it, then as far as the index has it by then.  So the index at that instant has indexed everything that is copied, or
everything that what is copied relies on: a name before mail for it, by whatever process.  All that was acknowledged before a backup
began is in it; of what came meanwhile, some.  A fence that is copied with the rest says where a segment ends whose sync failed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from mailhost.spool.files import Files
from mailhost.spool.log import inspection
from mailhost.spool.log.inspection import Positions, Progress, SegmentState
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.records import HEADER_OCTETS
from mailhost.spool.log.scan import Scan
from mailhost.spool.log.segments import NoSecret, find_secret

FORMAT = "mailhost backup 1"

_BLOCK_OCTETS = 1024 * 1024


class Unusable(Exception):
    """A backup that cannot be gone on with, or restored; its text is for the operator."""


class Kept(NamedTuple):
    """A segment in a manifest."""

    id: str
    octets: int
    """That belong to this backup; the copy may hold more."""
    sha256: str
    """Of those octets."""


class Manifest(NamedTuple):
    name: str
    made: str
    """When it was begun, UTC."""
    segments: dict[str, Kept]

    @property
    def octets(self) -> int:
        return sum(segment.octets for segment in self.segments.values())


class Taken(NamedTuple):
    """What a backup has done."""

    manifest: str
    segments: int
    octets: int
    copied: int
    """Octets that were not in an earlier backup."""
    short: list[str]
    """Segments that have fewer octets than the index says: damage, which `verify` tells more of."""


# ----------------------------------------------------------------------------------------------------------- manifests


def manifests(directory: str) -> list[str]:
    """Names, the oldest first: by their numbers, since clocks jump."""
    try:
        names = os.listdir(os.path.join(directory, "manifests"))
    except FileNotFoundError:
        return []
    return sorted((name for name in names if name.endswith(".json")), key=_number_of)


def _number_of(name: str) -> int:
    number = name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def read_manifest(directory: str, name: str) -> Manifest:
    """@raise Unusable: it is not there, not whole, or none of ours."""
    path = os.path.join(directory, "manifests", name)
    try:
        with open(path, "rb") as file:
            document = json.load(file)
        if document["format"] != FORMAT:
            raise Unusable(f"{path}: its format is {document['format']!r}; this program knows {FORMAT!r} only")
        segments = {one["id"]: Kept(one["id"], one["octets"], one["sha256"]) for one in document["segments"]}
        if _digest(document["segments"]) != document["sha256"]:
            raise Unusable(f"{path} is damaged: its checksum is wrong")
        return Manifest(name, document["made"], segments)
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable(f"{path} is no manifest: {error!r}") from None


def _write_manifest(directory: str, made: str, kept: list[Kept]) -> str:
    """Durable on return, and so is everything it names.  @return: its name."""
    segments = [one._asdict() for one in kept]
    document = {"format": FORMAT, "made": made, "segments": segments, "sha256": _digest(segments)}
    folder = os.path.join(directory, "manifests")
    number = max((_number_of(name) for name in manifests(directory)), default=0) + 1
    name = f"{number:06}-{made}.json"
    with open(os.path.join(folder, name + ".new"), "wb") as file:
        file.write(json.dumps(document, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
    os.rename(os.path.join(folder, name + ".new"), os.path.join(folder, name))
    sync_directory(folder)
    return name


def _digest(segments: Any) -> str:
    return hashlib.sha256(json.dumps(segments, sort_keys=True).encode()).hexdigest()


def forget(directory: str, keep: int) -> int:
    """
    Remove all backups but the latest ones, and the copies that only they needed.

    @param keep: how many stay.
    @return: how many are gone.
    @raise Unusable: one that stays cannot be read, so nothing is known of what it needs; nothing was removed.
    """
    names = manifests(directory)
    gone, stay = names[:-keep], names[-keep:]
    needed = {segment for name in stay for segment in read_manifest(directory, name).segments}
    for name in gone:
        os.unlink(os.path.join(directory, "manifests", name))
    sync_directory(os.path.join(directory, "manifests"))
    folder = os.path.join(directory, "segments")
    for name in os.listdir(folder):
        if name.removesuffix(".seg") not in needed:
            os.unlink(os.path.join(folder, name))
    return len(gone)


# -------------------------------------------------------------------------------------------------------- taking one


def take(files: Files, spool: str, directory: str, progress: Progress, keep: int | None = None) -> Taken:
    """
    Back up a spool, beside its host or without one.

    @param directory: of the backups; made if it is not there, its parent must be.
    @param keep: how many backups, this one counted, are kept; all of them unless given.
    @raise Unusable: it is somebody else's directory, or another backup is under way.
    @raise OSError: also for a disk that is full; earlier backups are whole.
    """
    layout = Layout(files, spool)
    with _prepared(directory), inspection.pinned(files, layout):
        taken = _Taking(files, layout, directory, progress).run()
        if keep is not None:
            forget(directory, keep)
        return taken


@contextmanager
def _prepared(directory: str) -> Iterator[None]:
    if os.path.isdir(directory) and not set(os.listdir(directory)) <= {"segments", "manifests", "lock"}:
        raise Unusable(f"{directory} has something else in it")
    for path in (directory, os.path.join(directory, "segments"), os.path.join(directory, "manifests")):
        if not os.path.isdir(path):
            os.mkdir(path, mode=0o700)
    files = Files()
    fd = files.open_lock(os.path.join(directory, "lock"))
    try:
        if not files.lock(fd):
            raise Unusable(f"another backup to {directory} is under way")
        yield
    finally:
        files.close(fd)


class _Taking:
    """One backup."""

    def __init__(self, files: Files, layout: Layout, directory: str, progress: Progress) -> None:
        self._files = files
        self._layout = layout
        self._directory = directory
        self._progress = progress
        self._known = self._last_manifest()
        self._kept: list[Kept] = []
        self._short: list[str] = []
        self._copied = self._done = self._total = 0

    def _last_manifest(self) -> dict[str, Kept]:
        """What the latest backup that can be read says of each segment."""
        for name in reversed(manifests(self._directory)):
            try:
                return read_manifest(self._directory, name).segments
            except Unusable:
                continue
        return {}

    def run(self) -> Taken:
        made = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        states = self._states()
        self._total = sum(state.octets for state in states)
        sealed = [state for state in states if state.sealed]
        for state in sealed:
            self._keep(state.name, self._sealed_end(state))
        self._keep_open_ones({state.id for state in sealed})
        sync_directory(os.path.join(self._directory, "segments"))
        name = _write_manifest(self._directory, made, self._kept)
        self._progress(self._total, self._total)
        octets = sum(kept.octets for kept in self._kept)
        return Taken(name, len(self._kept), octets, self._copied, self._short)

    def _keep_open_ones(self, done: set[int]) -> None:
        """Those that were being written when this began, and those that have been begun since."""
        ends = {state.id: self._whole_end(state) for state in self._states() if state.id not in done}
        for state in self._states():
            if state.id not in done:
                end = max(ends.get(state.id, 0), state.position)
                if end > 0:
                    self._keep(state.name, end)

    def _states(self) -> list[SegmentState]:
        known: Positions = {}
        try:
            with inspection.reading_index(self._layout) as index:
                known = inspection.positions(index)
        except sqlite3.Error:  # it is only an index: all whole records are copied, whatever it says
            pass
        return inspection.segments(self._files, self._layout, known)

    def _sealed_end(self, state: SegmentState) -> int:
        if state.octets < state.position:
            self._short.append(state.name)
        return min(state.octets, state.position)

    def _whole_end(self, state: SegmentState) -> int:
        """As far as there are whole records, behind what the index has: they may have been acknowledged."""
        fd = self._files.open(self._layout.segment(state.id))
        try:
            size = self._files.size(fd)
            scan = Scan(
                self._files, fd, find_secret(self._files, fd), max(state.position, HEADER_OCTETS), size, state.position
            )
            for _ in scan:
                pass
            return scan.tail
        except NoSecret:
            return size
        finally:
            self._files.close(fd)

    # -- one segment

    def _keep(self, name: str, end: int) -> None:
        known = self._known.get(name)
        if known is not None and known.octets == end and self._size_of_copy(name) >= end:
            self._kept.append(known)
        else:
            self._kept.append(self._copy(name, end))
        self._done += end
        self._progress(min(self._done, self._total), self._total)

    def _size_of_copy(self, name: str) -> int:
        try:
            return os.path.getsize(self._path(name))
        except FileNotFoundError:
            return -1

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, "segments", f"{name}.seg")

    def _copy(self, name: str, end: int) -> Kept:
        """
        Bring the copy up to this end, or to where the segment has been cut meanwhile because a sync failed.

        What a manifest names is never written again.

        @raise Unusable: it is not the beginning of this segment.
        """
        known = self._known.get(name)
        start = min(known.octets, self._size_of_copy(name)) if known is not None else 0
        digest, at = hashlib.sha256(), 0
        source = self._files.open(self._layout.segment(int(name, 16)))
        try:
            target = os.open(self._path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                while octets := self._files.read(source, min(_BLOCK_OCTETS, end - at), at):
                    digest.update(octets)
                    self._compare(name, octets, self._files.read(target, max(min(len(octets), start - at), 0), at))
                    self._write(target, octets, at, start)
                    at += len(octets)
                os.fsync(target)
            finally:
                os.close(target)
        finally:
            self._files.close(source)
        return Kept(name, at, digest.hexdigest())

    def _compare(self, name: str, octets: bytes, kept: bytes) -> None:
        if not octets.startswith(kept):
            raise Unusable(
                f"{self._path(name)} is not how this segment begins: it is damaged, or this spool was restored from an older"
                " backup than the last; back up to a new directory"
            )

    def _write(self, target: int, octets: bytes, at: int, start: int) -> None:
        """@param start: where what is new begins."""
        new = octets[max(start - at, 0) :]
        if new:
            self._files.write(target, [new], max(at, start))
            self._copied += len(new)


def sync_directory(path: str) -> None:
    Files().sync_directory(path)

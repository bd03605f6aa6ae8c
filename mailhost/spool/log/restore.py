"""
Makes a spool of a backup, from exactly one of its manifests.

The segments are all there is to restore: the first start takes them over and builds the index.  `VERSION` is written last, so that a
restore that was cut short is no spool to anybody.
"""

from __future__ import annotations

import hashlib
import os

from mailhost.spool.files import Files
from mailhost.spool.log.backup import Kept, Manifest, Unusable
from mailhost.spool.log.inspection import Progress
from mailhost.spool.log.layout import Layout

_BLOCK_OCTETS = 1024 * 1024


def check(directory: str, manifest: Manifest, progress: Progress) -> None:
    """
    Read every octet that belongs to a backup.

    @raise Unusable: a segment is not there, is too short or has changed.
    """
    done = 0
    for kept in manifest.segments.values():
        _copy(directory, kept, None)
        done += kept.octets
        progress(done, manifest.octets)


def restore(files: Files, directory: str, manifest: Manifest, spool: str, progress: Progress) -> None:
    """
    @param spool: a directory that is not there, or is empty; its parent must be there.
    @raise Unusable: it is neither, or the backup is damaged; what was restored so far is no spool.
    @raise OSError: the disk.
    """
    if os.path.isdir(spool) and os.listdir(spool):
        raise Unusable(f"{spool} is not empty; a restore overwrites nothing")
    layout = Layout(files, spool)
    files.make_directory(layout.root)
    files.make_directory(layout.segments)
    done = 0
    for kept in manifest.segments.values():
        _restore_one(files, directory, kept, layout)
        done += kept.octets
        progress(done, manifest.octets)
    for path in (layout.segments, layout.root, os.path.dirname(layout.root)):
        files.sync_directory(path)
    layout.write_version()
    layout.prepare()


def _restore_one(files: Files, directory: str, kept: Kept, layout: Layout) -> None:
    target = files.create(layout.segment(int(kept.id, 16)))
    try:
        _copy(directory, kept, (files, target))
        files.sync(target)
    finally:
        files.close(target)


def _copy(directory: str, kept: Kept, target: tuple[Files, int] | None) -> None:
    """@raise Unusable: the copy is not what the manifest says."""
    path = os.path.join(directory, "segments", f"{kept.id}.seg")
    digest, at = hashlib.sha256(), 0
    try:
        with open(path, "rb") as source:
            while at < kept.octets and (octets := source.read(min(_BLOCK_OCTETS, kept.octets - at))):
                digest.update(octets)
                if target is not None:
                    files, fd = target
                    files.write(fd, [octets], at)
                at += len(octets)
    except FileNotFoundError:
        raise Unusable(f"{path} is not there") from None
    if at < kept.octets:
        raise Unusable(f"{path} has {at} octets instead of {kept.octets}")
    if digest.hexdigest() != kept.sha256:
        raise Unusable(f"{path} is damaged: its checksum is wrong")

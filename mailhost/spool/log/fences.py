"""
What segments state at their beginning about other segments.

Fences say where segments truly end whose last sync failed; a segment that compaction made says which ones it replaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mailhost.spool.files import Files
from mailhost.spool.log import records
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.records import FENCE, HEADER_OCTETS, REPLACES
from mailhost.spool.log.scan import Found, Scan
from mailhost.spool.log.segments import NoSecret, find_secret


def fences(files: Files, layout: Layout, ids: Iterable[int]) -> dict[int, int]:
    """
    @param ids: of the segments to look into; those that others hold too.
    @return: segment to its true end.
    """
    ends: dict[int, int] = {}
    for id in ids:
        for record, metadata in _statements(files, layout, id):
            if record.kind == FENCE:
                segment, end = int(metadata["segment"], 16), metadata["end"]
                ends[segment] = min(end, ends.get(segment, end))
    return ends


def replaced_by(files: Files, layout: Layout, id: int) -> list[int]:
    """@return: the segments that this one replaces, there or not.  @raise OSError: it cannot be read."""
    return [
        int(segment, 16)
        for record, metadata in _statements(files, layout, id)
        if record.kind == REPLACES
        for segment in metadata["segments"]
    ]


def _statements(files: Files, layout: Layout, id: int) -> list[Found]:
    try:
        fd = files.open(layout.segment(id))
    except FileNotFoundError:  # replaced meanwhile
        return []
    try:
        return list(_statements_in(files, fd))
    except NoSecret:
        return []
    finally:
        files.close(fd)


def _statements_in(files: Files, fd: int) -> Iterator[Found]:
    if not records.may_be_statement(files.read(fd, 2 * HEADER_OCTETS, 0)):
        return
    for found in Scan(files, fd, find_secret(files, fd), HEADER_OCTETS, files.size(fd)):
        if found.record.kind not in (FENCE, REPLACES):
            return
        yield found

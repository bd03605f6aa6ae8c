"""Where segments truly end whose last sync failed: stated at the beginning of other segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mailhost.spool.files import Files
from mailhost.spool.log import records
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.records import HEADER_OCTETS
from mailhost.spool.log.scan import Scan
from mailhost.spool.log.segments import NoSecret, find_secret


def fences(files: Files, layout: Layout, ids: Iterable[int]) -> dict[int, int]:
    """
    @param ids: of the segments to look into; those that others hold too.
    @return: segment to its true end.
    """
    found: dict[int, int] = {}
    for id in ids:
        fd = files.open(layout.segment(id))
        try:
            for segment, end in _fences_in(files, fd):
                found[segment] = min(end, found.get(segment, end))
        except NoSecret:
            pass
        finally:
            files.close(fd)
    return found


def _fences_in(files: Files, fd: int) -> Iterator[tuple[int, int]]:
    if not records.may_be_fence(files.read(fd, 2 * HEADER_OCTETS, 0)):
        return
    for found in Scan(files, fd, find_secret(files, fd), HEADER_OCTETS, files.size(fd)):
        if found.record.kind != records.FENCE:
            return
        yield int(found.metadata["segment"], 16), found.metadata["end"]

"""
The octets of a segment: what this file says is the format, version 1.

All numbers are little-endian and unsigned; checksums are CRC-32 as in zlib.

A **segment** is a file `<id>.seg`, its name the id in 16 hexadecimal digits.  It begins with 64 octets:

    offset size
         0    8  magic, "mailhost"
         8    2  version of the format, 1
        10    2  shape: 0 a log, 1 one large message and nothing behind it
        12    4  zero
        16    8  id
        24    8  time of making, microseconds since 1970
        32   16  secret: random, in every record of this segment
        48   12  zero
        60    4  checksum of the 60 octets before

**Records** follow, one directly behind the other: a header, the metadata, the content.

    offset size
         0    4  magic, 0xF5 "rec"
         4   16  the segment's secret
        20    1  kind
        21    1  version of the record's form, 1
        22    2  zero
        24    4  octets of metadata
        28    8  octets of content
        36    8  offset of this record in the segment
        44    8  group offset: everything before it was synced before this record was written
        52    4  checksum of the metadata
        56    4  checksum of the content
        60    4  checksum of the 60 octets before

The secret keeps a message that quotes a record from being taken for one.  Metadata is JSON, in ASCII, padded with spaces where its
width had to be known early.  Content is in wire form.  Kinds:

    1 message    {"unique_id", "time", "reverse_path": [local part, domain], "forward_paths": [...], "parameters": {...},
                  "octets" plain form of the content, "header_octets", "dots", "drops": {maildrop id: its own header fields},
                  "flags": letters as in a Maildir's names, of a message that was imported with some}
    2 deletion   {"maildrop": id, "time", "messages": [[time, unique id], ...]}
    3 catalogue  {"maildrop": id, "time", "name": text or null, "removed": true where its mail is gone too}
    4 seal       {}: nothing follows, and everything before it was synced
    5 fence      {"segment": id, "end": offset}: that segment ends there, whatever the file holds; stands before all others
    6 replaces   {"segments": [id, ...]}: all that was wanted of those stands here too, so they may go; stands behind fences only.
                 A segment with one had all its records, synced, before it got its name

Ids are 16 hexadecimal digits, times microseconds since 1970.  Header fields are octets; those beyond UTF-8 stand as lone surrogates
(Python's "surrogateescape").  Other kinds are left where they are, and copied by whoever moves records.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple
from zlib import crc32

VERSION = 1

MESSAGE, DELETION, CATALOGUE, SEAL, FENCE, REPLACES = range(1, 7)

LOG, SINGLE = range(2)
"""Shapes of a segment."""

HEADER_OCTETS = 64
"""Of a segment's header, and of a record's."""

_SEGMENT_MAGIC = b"mailhost"
RECORD_MAGIC = b"\xf5rec"
_SEGMENT = struct.Struct("<8sHHIQQ16s12x")
_RECORD = struct.Struct("<4s16sBBHIQQQII")
_CHECKSUM = struct.Struct("<I")

Metadata = Mapping[str, Any]


class Foreign(Exception):
    """A segment of a version that this program does not know."""


class SegmentHeader(NamedTuple):
    id: int
    made: int
    secret: bytes
    shape: int = LOG

    def pack(self) -> bytes:
        return _with_checksum(_SEGMENT.pack(_SEGMENT_MAGIC, VERSION, self.shape, 0, self.id, self.made, self.secret))


def read_segment_header(octets: bytes) -> SegmentHeader | None:
    """
    @return: None when these octets are no header.
    @raise Foreign: they are one, of a later version.
    """
    if not _checked(octets):
        return None
    magic, version, shape, _, id, made, secret = _SEGMENT.unpack_from(octets)
    if magic != _SEGMENT_MAGIC:
        return None
    if version != VERSION:
        raise Foreign(f"segment {id:016x} has format version {version}")
    return SegmentHeader(id, made, secret, shape)


class Record(NamedTuple):
    """What a record's header says."""

    kind: int
    metadata_octets: int
    content_octets: int
    offset: int
    group_offset: int
    metadata_checksum: int
    content_checksum: int

    @property
    def length(self) -> int:
        """Of the whole record."""
        return HEADER_OCTETS + self.metadata_octets + self.content_octets

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def content_offset(self) -> int:
        return self.offset + HEADER_OCTETS + self.metadata_octets


def pack_record_header(
    secret: bytes,
    kind: int,
    metadata: bytes,
    content_octets: int,
    content_checksum: int,
    offset: int,
    group_offset: int,
) -> bytes:
    header = _RECORD.pack(
        RECORD_MAGIC,
        secret,
        kind,
        VERSION,
        0,
        len(metadata),
        content_octets,
        offset,
        group_offset,
        crc32(metadata),
        content_checksum,
    )
    return header + _CHECKSUM.pack(crc32(header))


def read_record_header(octets: bytes, secret: bytes, offset: int) -> Record | None:
    """
    @param offset: where in the segment these octets were found.
    @return: None when this is no record of this segment that belongs there.
    """
    if not _checked(octets):
        return None
    fields = _RECORD.unpack_from(octets)
    record = Record(fields[2], *fields[5:])
    if fields[0] != RECORD_MAGIC or fields[1] != secret or record.offset != offset:
        return None
    return record


def secret_of(octets: bytes, offset: int) -> bytes | None:
    """The secret of whatever record stands here: for a segment whose own header cannot be read."""
    if len(octets) < HEADER_OCTETS:
        return None
    secret = octets[4:20]
    return secret if read_record_header(octets, secret, offset) else None


def may_be_statement(start: bytes) -> bool:
    """
    Whether a segment begins with records about other segments.

    @param start: its first octets: its header and that of its first record.
    """
    return len(start) == 2 * HEADER_OCTETS and start[HEADER_OCTETS + 20] in (FENCE, REPLACES)


def mark_of(secret: bytes) -> bytes:
    """What every record of a segment begins with."""
    return RECORD_MAGIC + secret


def _with_checksum(octets: bytes) -> bytes:
    return octets + _CHECKSUM.pack(crc32(octets))


def _checked(octets: bytes) -> bool:
    if len(octets) < HEADER_OCTETS:
        return False
    (checksum,) = _CHECKSUM.unpack_from(octets, HEADER_OCTETS - 4)
    return bool(checksum == crc32(octets[: HEADER_OCTETS - 4]))


# -- metadata

# What `json.loads` does beside this, looking for an encoding and for white space, takes as long again; every RETR comes here.
_decode = json.JSONDecoder().raw_decode
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def pack_metadata(metadata: Metadata, width: int = 0) -> bytes:
    """@param width: to be padded to, in octets."""
    return _encode(metadata).encode("ascii").ljust(width)


def read_metadata(octets: bytes) -> dict[str, Any]:
    metadata: dict[str, Any]
    metadata, _ = _decode(octets.decode("ascii"))
    return metadata


def id_text(id: int) -> str:
    return f"{id:016x}"


def fields_text(fields: bytes) -> str:
    """A maildrop's own header fields as metadata holds them."""
    return fields.decode("utf-8", "surrogateescape")


def fields_octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")

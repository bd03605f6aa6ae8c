"""
Reads a spool with nothing but Python: `python read_spool.py SPOOL` lists all maildrops, `python read_spool.py SPOOL NAME` gives out one.

Written from docs/spool-format.md alone.  It reads whole segments into memory, and changes nothing.
"""

import json
import struct
import sys
from pathlib import Path
from zlib import crc32

MESSAGE, DELETION, CATALOGUE, _, FENCE = range(1, 6)


def is_whole(header):
    return len(header) == 64 and struct.unpack_from("<I", header, 60)[0] == crc32(header[:60])


def records(octets, end):
    """(kind, metadata, content) of every record that is right; what is damaged or torn is stepped over."""
    secret = octets[32:48] if is_whole(octets[:64]) else octets[68:84]
    mark, at = b"\xf5rec" + secret, 64
    while 0 <= at < end:
        header = octets[at : at + 64]
        if is_whole(header) and header.startswith(mark):
            kind, version, metadata_octets, content_octets, offset = struct.unpack_from("<BB2xIQQ", header, 20)
            metadata_checksum, content_checksum = struct.unpack_from("<II", header, 52)
            metadata = octets[at + 64 : at + 64 + metadata_octets]
            content = octets[at + 64 + metadata_octets :][:content_octets]
            behind = at + 64 + metadata_octets + content_octets
            right = crc32(metadata) == metadata_checksum and crc32(content) == content_checksum
            if right and version == 1 and offset == at and behind <= end:
                yield kind, json.loads(metadata), content
                at = behind
                continue
        at = octets.find(mark, at + 1)


def read(spool):
    """{name: {(time, unique id): content in wire form}}, each maildrop in the order of its message-numbers."""
    segments = {path.stem: path.read_bytes() for path in sorted(Path(spool, "segments").glob("*.seg"))}
    ends = {id: len(octets) for id, octets in segments.items()}
    for octets in segments.values():
        for kind, metadata, _ in records(octets, len(octets)):
            if kind == FENCE and metadata["segment"] in ends:
                ends[metadata["segment"]] = min(metadata["end"], ends[metadata["segment"]])
    messages, deleted, named = {}, set(), {}
    for id, octets in segments.items():
        for kind, metadata, content in records(octets, ends[id]):
            if kind == MESSAGE:
                for drop, fields in metadata["drops"].items():
                    own = fields.encode("utf-8", "surrogateescape")
                    messages.setdefault(drop, {})[metadata["time"], metadata["unique_id"]] = own + content
            elif kind == DELETION:
                deleted |= {(metadata["maildrop"], unique_id) for _, unique_id in metadata["messages"]}
            elif kind == CATALOGUE:
                change = metadata["time"], metadata["name"], metadata.get("removed", False)
                named[metadata["maildrop"]] = max(
                    change, named.get(metadata["maildrop"], change), key=lambda c: (c[2], c[0])
                )
    maildrops = {}
    for drop, (_, name, removed) in sorted(named.items(), key=lambda item: item[1][0]):
        if name is not None and not removed:  # of two with one name, the later one has it
            found = sorted(messages.get(drop, {}).items())
            maildrops[name] = {key: octets for key, octets in found if (drop, key[1]) not in deleted}
    return maildrops


if __name__ == "__main__":
    found = read(sys.argv[1])
    for name in sys.argv[2:]:
        for content in found[name].values():
            sys.stdout.buffer.write(content + b".\r\n")
    for name in sorted(found) if len(sys.argv) == 2 else ():
        print(name, len(found[name]), "messages")

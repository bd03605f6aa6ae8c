"""
`dovecot-uidlist`: the UIDs that Dovecot gave the messages of a Maildir, and with them the UIDLs its POP3 clients know.

    3 V1275660208 N25022 G3085f01b7f11094c501100008c4a11c1
    25006 W2481 :1275528487.M364837P9451.kurkku,S=1355,W=1394
    25017 P0004f1b3 W4321 :1275660205.M000001P1.kurkku

This is version 3, which Dovecot writes since 1.1 (its `maildir-uidlist.c`).  `V` is the UIDVALIDITY.  `P` is a UIDL that was kept from
another server; without it Dovecot's default `pop3_uidl_format = %08Xu%08Xv` makes one of UID and UIDVALIDITY.
"""

from __future__ import annotations

import re

from mailhost.spool.maildir.names import base_of

_HEADER = re.compile(rb"3 (?:[^V\n][^ \n]* )*V([0-9]+)(?: |\n|$)")
_KEPT = re.compile(r"(?:^| )P([!-~]{1,70})(?: |$)")


def read_uidlist(octets: bytes) -> dict[str, str]:
    """
    @param octets: the file's.
    @return: from a message's base to its UIDL.  Lines that are no lines of version 3 say nothing; Dovecot may be writing.
    """
    header, _, rest = octets.partition(b"\n")
    match = _HEADER.match(header)
    if match is None:
        return {}
    validity = int(match[1])
    found = {}
    for line in rest.decode("utf-8", "surrogateescape").split("\n")[:-1]:
        fields, colon, name = line.partition(" :")
        uid = fields.partition(" ")[0]
        if not (colon and name and uid.isdecimal()):
            continue
        kept = _KEPT.search(fields)
        found[base_of(name)] = kept[1] if kept else f"{int(uid):08x}{validity:08x}"
    return found

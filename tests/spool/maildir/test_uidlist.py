"""Dovecot's list of UIDs."""

from __future__ import annotations

import pytest

from mailhost.spool.maildir.uidlist import read_uidlist

LIST = b"""\
3 V1275660208 N25022 G3085f01b7f11094c501100008c4a11c1
25006 W2481 :1275528487.M364837P9451.kurkku,S=1355,W=1394
25017 P0004f1b3:x W4321 :1275660205.M000001P1.kurkku:2,S
25018 :1275660206.M1P1.kurkku
25019 G0123 W1 :odd name
"""


def test_version_3() -> None:
    """UID and UIDVALIDITY make the UIDL, as Dovecot's default has it; one that was kept from another server comes before."""
    assert read_uidlist(LIST) == {
        "1275528487.M364837P9451.kurkku,S=1355,W=1394": "000061ae4c0907b0",
        "1275660205.M000001P1.kurkku": "0004f1b3:x",
        "1275660206.M1P1.kurkku": "000061ba4c0907b0",
        "odd name": "000061bb4c0907b0",
    }


@pytest.mark.parametrize(
    "octets",
    [b"", b"3", b"1 1275660208 25022\n1 name\n", b"3 N1\n1 :name\n", b"\xff\xfe\n", b"3 V1\nno line\nx :name\n5\n"],
)
def test_what_is_no_such_list(octets: bytes) -> None:
    """It says nothing, and hinders nothing."""
    assert read_uidlist(octets) == {}


def test_cut_anywhere() -> None:
    """While Dovecot is writing, whole lines count and the last is not guessed at."""
    whole = read_uidlist(LIST)
    for end in range(len(LIST)):
        assert read_uidlist(LIST[:end]).items() <= whole.items()

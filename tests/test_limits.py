"""How operators write a quota."""

from __future__ import annotations

import pytest

from mailhost.limits import Quota


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("5G", Quota(None, 5 << 30)),
        ("0", Quota(None, 0)),
        ("2048", Quota(None, 2048)),
        ("1K", Quota(None, 1024)),
        ("3M", Quota(None, 3 << 20)),
        ("1T", Quota(None, 1 << 40)),
        ("10000/5G", Quota(10000, 5 << 30)),
        ("10000/-", Quota(10000, None)),
        ("-/5G", Quota(None, 5 << 30)),
        ("0/0", Quota(0, 0)),
        ("-", Quota()),
        ("-/-", Quota()),
    ],
)
def test_quota(text: str, quota: Quota) -> None:
    """Octets, or messages and octets; a hyphen for whichever has no limit."""
    assert Quota.parse(text) == quota


@pytest.mark.parametrize(
    "text",
    ["", "5g", "5GB", "5 G", "1.5G", "-5", "5G/", "/5G", "5G/5G", "1/2/3", "G", "none", "5G\n", "\u0665G", "9" * 16],
)
def test_no_quota(text: str) -> None:
    """Whatever else is written is no quota, and the operator is told so."""
    with pytest.raises(ValueError, match="is not a quota such as 5G"):
        Quota.parse(text)

"""How tools say what they found: lines for people, one JSON object for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any


def show(found: Mapping[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """
    @param found: what JSON can hold.
    @param lines: the same in words.
    """
    if as_json:
        json.dump(found, sys.stdout, indent=1)
        print()
    else:
        for line in lines:
            print(line)


def octets_text(octets: int) -> str:
    """`1.5 MiB`, for a person."""
    size = float(octets)
    for unit in ("octets", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{octets} {unit}" if unit == "octets" else f"{size:.1f} {unit}"

"""What docs/accounts.md shows is what the program takes."""

from __future__ import annotations

import re
from pathlib import Path

from mailhost.cred import passwd_format, scram

PAGE = (Path(__file__).parents[2] / "docs" / "accounts.md").read_text()


def test_example_file() -> None:
    """The example is a file, with the passwords of RFC 7677 and of its comment."""
    (example,) = re.findall(r"```passwd\n(.*?)```", PAGE, re.DOTALL)
    accounts = passwd_format.parse("example", example.encode())
    assert accounts["ann@example.test"].verifier.matches(b"pencil")
    assert accounts["bob@example.test"].verifier.matches(b"secret")
    assert accounts["bob@example.test"].fields == {"quota": "5G", "note": "leaves in May"}


def test_figures() -> None:
    """The default number of iterations is the one it says."""
    assert f"{scram.ITERATIONS:,} iterations" in PAGE

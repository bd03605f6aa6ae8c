"""What can be said of a directory before it is used as a spool."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailhost.spool.files import Files
from mailhost.spool.log.layout import Layout


def obstacle(path: str | Path) -> str | None:
    return Layout(Files(), str(path)).obstacle()


def test_places_for_a_spool(tmp_path: Path) -> None:
    """A new directory, an empty one, one with what mkfs makes, and a spool stand in nobody's way."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "fresh" / "lost+found").mkdir(parents=True)
    (tmp_path / "spool").mkdir()
    Layout(Files(), str(tmp_path / "spool")).write_version()
    for name in "new", "empty", "fresh", "spool":
        assert obstacle(tmp_path / name) is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no/such", "make the directory"),
        ("file", "is no directory"),
        ("foreign", "it has no VERSION, but 'x'"),
        ("later", "this program knows"),
        ("with\0nul", "it has a NUL in it"),
    ],
)
def test_what_ends_a_start(tmp_path: Path, name: str, says: str) -> None:
    """Each in one line that says what would be right."""
    (tmp_path / "file").write_bytes(b"")
    for foreign, file in ("foreign", "x"), ("later", "VERSION"):
        (tmp_path / foreign).mkdir()
        (tmp_path / foreign / file).write_bytes(b"mailhost log spool 9\n")
    why = obstacle(str(tmp_path / name))
    assert why is not None
    assert says in why
    assert "\n" not in why

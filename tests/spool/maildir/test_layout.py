"""From names to paths and back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailhost.spool.files import Files
from mailhost.spool.maildir.layout import BadPattern, Layout

PATTERNS = ["%d/%n", "%u", "%d/%n/Maildir", "users/%u/Maildir", "%n/%d"]
ODD_NAMES = [
    "",
    "@",
    "a@",
    "@b",
    "ann",
    ".",
    "..",
    "../up",
    "a/b@c/d",
    "%none",
    "%empty",
    "a\0b",
    "A",
    "a",
    "x@y@z",
    "\udcff",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(name=st.text(max_size=300), other=st.text(max_size=300))
def test_no_two_names_share_a_path(pattern: str, name: str, other: str) -> None:
    """Whatever names are, their paths lie below the root, hold no hidden component, and are different."""
    layout = Layout(Files(), "/root", pattern)
    path = layout.path(name)
    assert os.path.normpath(path) == path
    components = path.removeprefix("/root/").split("/")
    assert len(components) == pattern.count("/") + 1
    assert all(0 < len(component.encode()) <= 255 and component[0] != "." for component in components)
    assert (layout.path(other) == path) == (other == name)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_odd_names(pattern: str) -> None:
    """Names made of what the encoding itself uses are told apart too."""
    layout = Layout(Files(), "/root", pattern)
    assert len({layout.path(name) for name in ODD_NAMES}) == len(ODD_NAMES)


def test_ordinary_names() -> None:
    """They look as other programs expect them."""
    assert Layout(Files(), "/m").path("ann.b+c@example.test") == "/m/example.test/ann.b+c"
    assert Layout(Files(), "/m", "%d/%n/Maildir").path("ann@example.test") == "/m/example.test/ann/Maildir"
    assert Layout(Files(), "/m", "%u").path("j\u00fcrgen@example.test") == "/m/j\u00fcrgen@example.test"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_all_are_found_again(tmp_path: Path, pattern: str) -> None:
    """Every name is read back from its path; what is no maildrop is passed over."""
    layout = Layout(Files(), str(tmp_path), pattern)
    for name in ODD_NAMES:
        os.makedirs(os.path.join(layout.path(name), "cur"))
    os.makedirs(tmp_path / ".mailhost" / "x" / "cur")
    os.makedirs(os.path.join(layout.path("no-maildir@example.test"), "new"))
    (tmp_path / "file").write_text("")
    assert sorted(layout.maildrops()) == sorted(ODD_NAMES)


def test_long_names_are_stated(tmp_path: Path) -> None:
    """Where a path is a hash the Maildir says the name; one that says another maildrop's says nothing."""
    layout = Layout(Files(), str(tmp_path))
    name, other = "x" * 300 + "@example.test", "y" * 300 + "@example.test"
    assert layout.names_needed(name)
    assert not layout.names_needed("ann@example.test")
    os.makedirs(os.path.join(layout.path(name), "cur"))
    stated = Path(layout.path(name), "mailhost.name")
    assert list(layout.maildrops()) == []
    stated.write_text(f'["{other}"]')
    assert list(layout.maildrops()) == []
    stated.write_text("[")
    assert list(layout.maildrops()) == []
    stated.write_text(f'["{other}", "{name}"]')
    assert list(layout.maildrops()) == [name]


@pytest.mark.parametrize(
    "pattern", ["", "/%u", "%u/", "../%u", "%n", "%d", "mail-%u", "%x", ".mail/%u", "%u/%u", "a/./%u", "%u/../x"]
)
def test_bad_patterns(pattern: str) -> None:
    """What could lead out of the root or mix maildrops is refused with a reason."""
    with pytest.raises(BadPattern, match=r"."):
        Layout(Files(), "/m", pattern)


def test_parents() -> None:
    """All directories above a Maildir, the root first."""
    layout = Layout(Files(), "/m", "users/%u/Maildir")
    assert layout.parents(layout.path("ann")) == ["/m", "/m/users", "/m/users/ann"]

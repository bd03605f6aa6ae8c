"""
Where things are: one Maildir per maildrop, and a folder of the spool's own.

    .mailhost/lock              who changes names has it alone, who delivers shares it; its first octets count changed names
    .mailhost/requests          memory that all processes share, see `log.requests`
    .mailhost/staging/          messages on their way in, see `staged`
    .mailhost/removed/          maildrops that are being taken apart
    <as the pattern says>/      tmp/ new/ cur/, and whatever other programs keep there
        mailhost.lock           locked by the open session; holds the maildrop's id, 16 hexadecimal digits
        mailhost.index          sizes and unique-ids of other programs' messages, see `foreign`
        mailhost.deleting       what a session is removing, see `deletions`
        mailhost.name           the names a maildrop has or had, where its path cannot tell

A pattern is a relative path: `%u` stands for a maildrop's name, `%n` for what is before its last "@", `%d` for what is behind it, each
as a whole component; other components are as they are.  `%d/%n` is the default; `%d/%n/Maildir` and `%u` are usual with Dovecot.

Names are any text.  What a file system or a person could misread is written as `%` and two hexadecimal digits for each octet, and what
is too long as a hash.  No component made of a name begins with a dot.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from mailhost.spool.files import Files
from mailhost.spool.networks import check_local

DEFAULT_PATTERN = "%d/%n"

_LONGEST = 200  # octets of a component; 255 is the most that file systems take
_EMPTY = "%empty"
_NO_DOMAIN = "%none"
_HASHED = "%sha256-"
_PLAIN = re.compile(r"[0-9A-Za-z@+_=.-]")


class BadPattern(ValueError):
    """A pattern that cannot tell maildrops apart."""


class Root(NamedTuple):
    """The paths of the spool's own folder."""

    path: str

    @property
    def own(self) -> str:
        return os.path.join(self.path, ".mailhost")

    @property
    def lock(self) -> str:
        return os.path.join(self.path, ".mailhost", "lock")

    @property
    def requests(self) -> str:
        return os.path.join(self.path, ".mailhost", "requests")

    @property
    def staging(self) -> str:
        return os.path.join(self.path, ".mailhost", "staging")

    @property
    def removed(self) -> str:
        return os.path.join(self.path, ".mailhost", "removed")


class Layout:
    """From names to paths and back."""

    def __init__(self, files: Files, directory: str, pattern: str = DEFAULT_PATTERN) -> None:
        """@raise BadPattern: and why."""
        self._files = files
        self._components = _components_of(pattern)
        self.root = Root(os.path.abspath(directory))

    def prepare(self) -> None:
        """
        Make the spool's own folder, durably.

        @raise SpoolUnavailable: this directory cannot hold a spool; its cause is one line for the operator.
        """
        files, root = self._files, self.root
        check_local(files, root.path)
        if not files.exists(root.own):
            files.sync_directory(os.path.dirname(root.path))  # the spool's own name
        for directory in root.own, root.staging, root.removed:
            files.make_directory(directory)
        files.sync_directory(root.own)
        files.sync_directory(root.path)

    def lock_start(self) -> int:
        """Wait until nobody else is starting on this directory, which is made if need be.  Closing the descriptor ends it."""
        self._files.make_directory(self.root.path)
        fd = self._files.open(self.root.path)
        self._files.lock(fd, wait=True)
        return fd

    def path(self, name: str) -> str:
        """Of the Maildir that a maildrop of this name has."""
        return os.path.join(self.root.path, *_written(self._components, name))

    def parents(self, path: str) -> list[str]:
        """The directories above a Maildir, the root first."""
        above = [self.root.path]
        for component in os.path.relpath(path, self.root.path).split(os.sep)[:-1]:
            above.append(os.path.join(above[-1], component))
        return above

    def names_needed(self, name: str) -> bool:
        """Whether the path cannot tell the name."""
        return any(component.startswith(_HASHED) for component in _written(self._components, name))

    # -- all there are

    def maildrops(self) -> Iterator[str]:
        """Their names, in no order."""
        yield from self._below(self.root.path, 0, {})

    def _below(self, path: str, depth: int, found: dict[str, str]) -> Iterator[str]:
        component = self._components[depth]
        last = depth + 1 == len(self._components)
        for entry in self._entries(path, component):
            below = os.path.join(path, entry)
            seen = {**found, component: entry} if component.startswith("%") else found
            if not last:
                yield from self._below(below, depth + 1, seen)
            elif self._files.exists(os.path.join(below, "cur")):
                name = self._name(below, seen)
                if name is not None:
                    yield name

    def _entries(self, path: str, component: str) -> list[str]:
        if not component.startswith("%"):
            return [component] if self._files.exists(os.path.join(path, component)) else []
        try:
            return [entry for entry in self._files.names(path) if not entry.startswith(".")]
        except (NotADirectoryError, FileNotFoundError):
            return []

    def _name(self, path: str, found: dict[str, str]) -> str | None:
        name = _read(found)
        if name is None:
            return next((name for name in self.stated_names(path) if self.path(name) == path), None)
        return name if self.path(name) == path else None

    def stated_names(self, path: str) -> list[str]:
        """What `mailhost.name` in a Maildir says: while a maildrop is renamed, the old name and the new one."""
        stated = os.path.join(path, "mailhost.name")
        if not self._files.exists(stated):
            return []
        fd = self._files.open(stated)
        try:
            text = self._files.read(fd, self._files.size(fd), 0)
        finally:
            self._files.close(fd)
        try:
            names: list[str] = json.loads(text)
        except ValueError:
            return []
        return names


def check_pattern(pattern: str) -> None:
    """@raise BadPattern: and why."""
    _components_of(pattern)


def _components_of(pattern: str) -> list[str]:
    components = pattern.split("/")
    for component in components:
        if component in ("", ".", "..") or (component.startswith(".") and component == components[0]):
            raise BadPattern(f'"{pattern}" must be a relative path of names, the first without a dot before it')
        if "%" in component and component not in ("%u", "%n", "%d"):
            raise BadPattern(f'"{component}" in "{pattern}": %u, %n and %d stand alone between slashes')
    if not ("%u" in components or ("%n" in components and "%d" in components)):
        raise BadPattern(f'"{pattern}" must hold %u, or both %n and %d')
    if any(components.count(variable) > 1 for variable in ("%u", "%n", "%d")):
        raise BadPattern(f'"{pattern}" holds one of %u, %n and %d twice')
    return components


def _written(components: list[str], name: str) -> list[str]:
    local_part, at, domain = name.rpartition("@")
    if not at:
        local_part = name
    variables = {"%u": _quoted(name), "%n": _quoted(local_part), "%d": _quoted(domain) if at else _NO_DOMAIN}
    return [variables.get(component, component) for component in components]


def _read(found: dict[str, str]) -> str | None:
    """The name that these components were made of; None where that cannot be told."""
    texts = {variable: _unquoted(written) for variable, written in found.items()}
    if "%u" in texts:
        return texts["%u"]
    local_part = texts["%n"]
    if local_part is None or found["%d"] == _NO_DOMAIN:
        return local_part
    domain = texts["%d"]
    return None if domain is None else f"{local_part}@{domain}"


def _quoted(text: str) -> str:
    if not text:
        return _EMPTY
    quoted = "".join(
        character if _stays(character) and not (place == 0 and character == ".") else _percent(character)
        for place, character in enumerate(text)
    )
    if len(quoted.encode()) <= _LONGEST:
        return quoted
    return _HASHED + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _stays(character: str) -> bool:
    """Letters of all scripts stay readable, and what other programs leave as it is."""
    return _PLAIN.match(character) is not None or (character > "\x7f" and character.isalnum())


def _percent(character: str) -> str:
    return "".join(f"%{octet:02x}" for octet in character.encode("utf-8", "surrogatepass"))


def _unquoted(quoted: str) -> str | None:
    if quoted == _EMPTY:
        return ""
    try:
        text = unquote_to_bytes(os.fsencode(quoted)).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return text if _quoted(text) == quoted else None

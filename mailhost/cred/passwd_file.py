"""
Changes to a `passwd` file, for the command line (the file's form: `passwd_format`).

A change replaces the file whole: written beside it, synced, renamed over it, the directory synced.  Whoever reads sees the old file
or the new one, and after a crash too.  Mode, owner, comments and order stay.  Two who change it at once wait for each other, by a
flock on the file itself; somebody with an editor takes no part in that.

These block, hash and sync: not for a reactor's thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import IO

from mailhost.cred import passwd_format, prepare, scram

# The first field, its value, and all that follows: more fields, a comment, the line end.
_LINE = re.compile(rb"([^:]*:)([^:]*?)(\s*|\s+#.*|:.*)", re.DOTALL)


class AccountExists(ValueError):
    """There is one of this name."""


class NoSuchAccount(LookupError):
    """There is none of this name."""


def create(path: str) -> None:
    """
    An empty file, durably, that its owner may write and its group may read.

    @raise FileExistsError: there is one.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        os.write(descriptor, b"# address:{SCRAM-SHA-256}...  written by `mailhost user`; may be edited by hand\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync_directory(path)


def names(path: str) -> list[str]:
    """The accounts in the file's order, in the form that counts.  @raise BrokenLine: the file is wrong."""
    with open(path, "rb") as file:
        return list(passwd_format.parse(path, file.read()))


def add(path: str, address: str, password: str, *, iterations: int = scram.ITERATIONS) -> None:
    """
    @raise AccountExists: in this or another spelling.
    @raise ValueError: the address or the password cannot be one, in words for the operator; or BrokenLine.
    """
    _check_address(address)
    line = f"{address}:{_verifier(password, iterations)}\n".encode()

    def with_it(lines: list[bytes]) -> list[bytes]:
        if _index(lines, address) is not None:
            raise AccountExists(f"{address} is an account already")
        if lines and not lines[-1].endswith(b"\n"):
            lines[-1] += b"\n"
        return [*lines, line]

    _edit(path, with_it)


def set_password(path: str, address: str, password: str, *, iterations: int = scram.ITERATIONS) -> None:
    """
    Fields and comment of the account stay.

    @raise NoSuchAccount: there is none.
    @raise ValueError: as `add` does.
    """
    value = str(_verifier(password, iterations)).encode()

    def with_it(lines: list[bytes]) -> list[bytes]:
        index = _existing(lines, address)
        match = _LINE.fullmatch(lines[index])
        assert match is not None, "a line that was parsed"
        lines[index] = match[1] + value + match[3]
        return lines

    _edit(path, with_it)


def remove(path: str, address: str) -> None:
    """The account's line goes; its mail is not touched.  @raise NoSuchAccount: there is none."""

    def without_it(lines: list[bytes]) -> list[bytes]:
        del lines[_existing(lines, address)]
        return lines

    _edit(path, without_it)


def _verifier(password: str, iterations: int) -> scram.Scram:
    """@raise ValueError: no client could send it."""
    if not password:
        raise ValueError("the password is empty")
    if any(character in password for character in "\0\r\n"):
        raise ValueError("a password cannot hold NUL, CR or LF")
    try:
        octets = password.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("the password is not UTF-8") from None
    return scram.make(octets, iterations=iterations)


def _check_address(address: str) -> None:
    """@raise ValueError: its line would not be this account's."""
    try:
        account = passwd_format.parse_line(f"{address}:{{PLAIN}}x".encode())
    except ValueError:
        account = None
    local_part, at, domain = address.rpartition("@")
    if account is None or account.name != prepare.name(address) or (at and not (local_part and domain)):
        raise ValueError(f"{address!r} cannot be the name of an account")


def _index(lines: list[bytes], address: str) -> int | None:
    name = prepare.name(address)
    for index, line in enumerate(lines):
        account = passwd_format.parse_line(line)
        if account is not None and account.name == name:
            return index
    return None


def _existing(lines: list[bytes], address: str) -> int:
    index = _index(lines, address)
    if index is None:
        raise NoSuchAccount(f"{address} is no account")
    return index


def _edit(path: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    # A link stays a link: what it points to is replaced.
    path = os.path.realpath(path)
    with _locked(path) as file:
        content = file.read()
        passwd_format.parse(path, content)  # nothing is changed in a file that is wrong
        lines = change(io.BytesIO(content).readlines())
        _replace(path, b"".join(lines), os.fstat(file.fileno()))


@contextlib.contextmanager
def _locked(path: str) -> Iterator[IO[bytes]]:
    """The file, locked, and still the one of that name: whoever held the lock before has usually replaced it."""
    while True:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                yield file
                return


def _replace(path: str, content: bytes, like: os.stat_result) -> None:
    directory, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with open(descriptor, "wb") as file:
            if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, like.st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_directory(path)


def _sync_directory(path: str) -> None:
    descriptor = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

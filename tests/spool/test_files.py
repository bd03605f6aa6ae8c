"""The one door for file operations, on the real file system."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from mailhost.spool.files import Files

files = Files()


def test_modes(tmp_path: Path) -> None:
    """What a spool makes is its user's and its group's, whatever the umask says."""
    before = os.umask(0o077)
    try:
        files.make_directory(str(tmp_path / "spool"))
        files.close(files.create(str(tmp_path / "file")))
        files.close(files.open_lock(str(tmp_path / "lock")))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o2770
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o660
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o660


def test_create_never_opens_what_is_there(tmp_path: Path) -> None:
    """A file that exists is somebody's."""
    files.close(files.create(str(tmp_path / "file")))
    with pytest.raises(FileExistsError):
        files.create(str(tmp_path / "file"))


def test_write_many_buffers(tmp_path: Path) -> None:
    """More buffers than one call takes arrive in their order."""
    fd = files.create(str(tmp_path / "file"))
    buffers = [b"%d\n" % number for number in range(5000)]
    files.write(fd, buffers, 10)
    assert files.read(fd, 1_000_000, 10) == b"".join(buffers)
    assert files.size(fd) == 10 + len(b"".join(buffers))
    files.close(fd)


def test_short_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less written than asked for is a full disk, not a success."""
    fd = files.create(str(tmp_path / "file"))
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, offset: 1)
    with pytest.raises(OSError, match="short") as raised:
        files.write(fd, [b"octets"], 0)
    assert raised.value.errno == errno.ENOSPC
    files.close(fd)


def test_read_to_the_end(tmp_path: Path) -> None:
    """Reading gives what was asked for, less only at the end, however little one call of the system gives."""
    fd = files.create(str(tmp_path / "file"))
    files.write(fd, [b"0123456789"], 0)
    assert files.read(fd, 4, 3) == b"3456"
    assert files.read(fd, 100, 8) == b"89"
    assert files.read(fd, 100, 10) == b""
    files.close(fd)


def test_read_at_once(tmp_path: Path) -> None:
    """What was just written is in memory; what the system cannot give at once comes out as nothing, not as an error."""
    fd = files.create(str(tmp_path / "file"))
    files.write(fd, [b"0123456789"], 0)
    assert files.read_at_once(fd, 4, 3) in (b"3456", b"")
    files.close(fd)
    reader, writer = os.pipe()
    assert files.read_at_once(reader, 4, 0) == b""
    os.close(reader)
    os.close(writer)


def test_locks(tmp_path: Path) -> None:
    """A lock has one holder, within one process too, and ends with the file's closing."""
    path = str(tmp_path / "lock")
    first, second = files.open_lock(path), files.open_lock(path)
    assert files.lock(first)
    assert not files.lock(second)
    files.close(first)
    assert files.lock(second)
    files.close(second)


def test_is_at(tmp_path: Path) -> None:
    """An open file is at a path as long as the path means that very file."""
    path = str(tmp_path / "file")
    fd = files.create(path)
    assert files.is_at(fd, path)
    files.unlink(path)
    assert not files.is_at(fd, path)
    files.close(files.create(path))
    assert not files.is_at(fd, path)
    files.close(fd)


def test_file_system(tmp_path: Path) -> None:
    """The kernel's name for a file system is found from the path of a file in it."""
    assert files.file_system("/proc") in ("proc", "")
    assert files.file_system(str(tmp_path)) not in ("nfs", "nfs4")
    assert files.free_octets(str(tmp_path)) > 0

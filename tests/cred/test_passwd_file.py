"""Changing a passwd file: what changes, what stays, and what a crash or a second editor can do."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mailhost.cred import passwd_file
from mailhost.cred.passwd_file import AccountExists, NoSuchAccount
from mailhost.cred.passwd_format import BrokenLine, parse

FILE = """\
# our people
ann@example.test:{PLAIN}secret:quota=5G:note=two words  # since May: mornings only

  # part time
Bob@Example.test:{PLAIN}builder\t# old
#eve@example.test:{PLAIN}gone
zoë@example.test:{PLAIN}x"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "passwd"
    file.write_text(FILE)
    file.chmod(0o640)
    return str(file)


def lines(path: str) -> list[str]:
    return Path(path).read_text().split("\n")


def matches(path: str, name: str, password: str) -> bool:
    return parse(path, Path(path).read_bytes())[name].verifier.matches(password.encode())


def add(path: str, address: str, password: str) -> None:
    passwd_file.add(path, address, password, iterations=10)


def set_password(path: str, address: str, password: str) -> None:
    passwd_file.set_password(path, address, password, iterations=10)


class TestNames:
    def test_order(self, path: str) -> None:
        """As in the file, in the form that counts; comments are nobody."""
        assert passwd_file.names(path) == ["ann@example.test", "bob@example.test", "zoë@example.test"]


class TestAdd:
    def test_added(self, path: str) -> None:
        """One line more, below the others, as SCRAM-SHA-256; all else stays as it was."""
        add(path, "carl@example.test", "sécret: with # and spaces ")
        assert lines(path)[:-2] == FILE.split("\n")
        assert lines(path)[-2].startswith("carl@example.test:{SCRAM-SHA-256}10,")
        assert matches(path, "carl@example.test", "sécret: with # and spaces ")

    def test_exists(self, path: str) -> None:
        """In whatever spelling; the file stays untouched."""
        for address in ("ann@example.test", "ANN@example.test", "bob@example.test", "ZOE\u0308@example.test"):
            with pytest.raises(AccountExists):
                add(path, address, "x")
        assert Path(path).read_text() == FILE

    @pytest.mark.parametrize(
        "address",
        [
            "",
            "a b@x",
            "a:b@x",
            "#a@x",
            "a@x\n",
            "a\n@x",
            "\x00@x",
            "@x",
            "a@",
            " a@x",
            "a@x ",
            "a@x #b",
            "\udcff@x",
            "\ta@x",
        ],
    )
    def test_no_address(self, path: str, address: str) -> None:
        """What would not be read back as this account is refused."""
        with pytest.raises(ValueError, match="cannot be the name of an account"):
            add(path, address, "x")
        assert Path(path).read_text() == FILE

    @pytest.mark.parametrize("password", ["", "a\nb", "a\rb", "a\0b", "\udcff"])
    def test_no_password(self, path: str, password: str) -> None:
        """What no client could send is refused."""
        with pytest.raises(ValueError, match="password"):
            add(path, "carl@example.test", password)
        assert Path(path).read_text() == FILE

    def test_broken_file(self, path: str) -> None:
        """Nothing is changed in a file that is wrong, lest it be taken for right."""
        Path(path).write_text("ann@example.test\n")
        for change in (lambda: add(path, "b@x", "x"), lambda: passwd_file.remove(path, "ann@example.test")):
            with pytest.raises(BrokenLine, match="line 1"):
                change()
        assert Path(path).read_text() == "ann@example.test\n"


class TestSetPassword:
    def test_only_the_value_changes(self, path: str) -> None:
        """Spelling, fields, comments and order stay."""
        for address in ("ann@example.test", "bob@example.test", "zoë@example.test"):
            set_password(path, address, "new")
            assert matches(path, address, "new")
        before, after = FILE.split("\n"), lines(path)
        assert [line.partition("{")[0] for line in after] == [line.partition("{")[0] for line in before]
        assert after[1].endswith(":quota=5G:note=two words  # since May: mornings only")
        assert after[4].endswith("\t# old")
        assert after[5] == before[5]
        assert parse(path, Path(path).read_bytes())["ann@example.test"].fields == {"quota": "5G", "note": "two words"}

    def test_line_ends_stay(self, path: str) -> None:
        """A file with CRLF keeps it."""
        Path(path).write_bytes(b"ann@x:{PLAIN}x\r\nbob@x:{PLAIN}x\r\n")
        set_password(path, "ann@x", "new")
        assert Path(path).read_bytes().endswith(b"=\r\nbob@x:{PLAIN}x\r\n")
        assert matches(path, "ann@x", "new")

    def test_nobody(self, path: str) -> None:
        """A commented-out account is none."""
        for change in (lambda: set_password(path, "eve@example.test", "x"), lambda: passwd_file.remove(path, "eve@x")):
            with pytest.raises(NoSuchAccount):
                change()
        assert Path(path).read_text() == FILE


class TestRemove:
    def test_removed(self, path: str) -> None:
        """Its line goes, and no other."""
        passwd_file.remove(path, "BOB@example.test")
        assert lines(path) == [line for line in FILE.split("\n") if not line.startswith("Bob")]


class TestFile:
    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o660])
    def test_mode_and_owner_stay(self, path: str, mode: int) -> None:
        """Whoever could read it before still can, and nobody else."""
        os.chmod(path, mode)
        before = os.stat(path)
        add(path, "carl@example.test", "x")
        after = os.stat(path)
        assert stat.S_IMODE(after.st_mode) == mode
        assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)

    def test_owner_that_cannot_stay(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the owner cannot be kept nothing changes: the service might not be able to read the new file."""

        def fchown(*arguments: Any) -> None:
            raise PermissionError("not yours")

        monkeypatch.setattr("os.geteuid", lambda: os.stat(path).st_uid + 1)
        monkeypatch.setattr("os.fchown", fchown)
        with pytest.raises(PermissionError):
            add(path, "carl@example.test", "x")
        assert Path(path).read_text() == FILE
        assert os.listdir(os.path.dirname(path)) == ["passwd"]

    def test_synced_before_it_counts(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The new file is on the disk before it takes the name, and the name before we return."""
        steps: list[str] = []
        fsync, rename = os.fsync, os.rename

        def recorded_fsync(descriptor: int) -> None:
            steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
            fsync(descriptor)

        def recorded_rename(old: str, new: str) -> None:
            steps.append("rename")
            rename(old, new)

        monkeypatch.setattr("os.fsync", recorded_fsync)
        monkeypatch.setattr("os.rename", recorded_rename)
        add(path, "carl@example.test", "x")
        assert steps == ["file", "rename", "directory"]

    def test_failed_write(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a full disk the old file stays, and nothing lies beside it."""

        def fsync(descriptor: int) -> None:
            raise OSError("no space left")

        monkeypatch.setattr("os.fsync", fsync)
        with pytest.raises(OSError, match="no space"):
            add(path, "carl@example.test", "x")
        assert Path(path).read_text() == FILE
        assert os.listdir(os.path.dirname(path)) == ["passwd"]

    def test_link(self, path: str, tmp_path: Path) -> None:
        """A link stays one; the file it points to is changed."""
        link = tmp_path / "link"
        link.symlink_to(path)
        add(str(link), "carl@example.test", "x")
        assert link.is_symlink()
        assert "carl@example.test" in passwd_file.names(path)

    def test_created(self, tmp_path: Path) -> None:
        """A new file is empty, closed to others, and never put over another."""
        path = str(tmp_path / "new")
        passwd_file.create(path)
        assert passwd_file.names(path) == []
        assert not os.stat(path).st_mode & 0o137
        add(path, "ann@example.test", "x")
        with pytest.raises(FileExistsError):
            passwd_file.create(path)
        assert passwd_file.names(path) == ["ann@example.test"]

    def test_two_at_once(self, path: str) -> None:
        """Many commands at the same time wait for each other; no account is lost."""
        program = (
            "import sys; from mailhost.cred.passwd_file import add\n"
            "for number in range(5): add(sys.argv[1], f'{sys.argv[2]}{number}@example.test', 'x', iterations=1)"
        )
        editors = [subprocess.Popen([sys.executable, "-c", program, path, name]) for name in ("p", "q", "r", "s")]
        assert [editor.wait(60) for editor in editors] == [0] * 4
        expected = {f"{name}{number}@example.test" for name in "pqrs" for number in range(5)}
        assert set(passwd_file.names(path)) >= expected
        assert len(passwd_file.names(path)) == 23

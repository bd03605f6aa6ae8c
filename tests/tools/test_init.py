"""`mailhost init`: what it makes, and that it overwrites nothing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from mailhost.service.config import load
from mailhost.tools import init
from mailhost.tools.main import Failed, main


def test_what_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration that can be loaded, an empty spool, an account file, a certificate; and what to do next."""
    assert main(["init", str(tmp_path / "mail"), "--domain", "example.test", "--hostname", "mx.example.test"]) == 0
    config = load(str(tmp_path / "mail" / "mailhost.toml"))
    assert [(one.protocol, one.tls, one.endpoint.split(":")[1]) for one in config.listen] == [
        ("smtp", "starttls", "2525"),
        ("submission", "starttls", "2587"),
        ("submission", "implicit", "2465"),
        ("pop3", "starttls", "2110"),
        ("pop3", "implicit", "2995"),
    ]
    assert all(one.endpoint.endswith(":interface=127.0.0.1") for one in config.listen)
    assert not any(one.plaintext_login for one in config.listen)
    assert (config.hostname, config.domains) == ("mx.example.test", ("example.test",))
    said = capsys.readouterr().out
    assert "mailhost user add ann@example.test --config" in said
    assert "mailhost run --config" in said


def test_modes(tmp_path: Path) -> None:
    """Nobody else reads the key, passwords or mail; new files in the spool belong to its group."""
    init.make(str(tmp_path), domain="example.test", hostname="mx.example.test")
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("spool", "passwd", "tls/key.pem")}
    assert modes == {"spool": 0o2770, "passwd": 0o640, "tls/key.pem": 0o600}


def test_the_certificates_names(tmp_path: Path) -> None:
    """The host's own, and those of loopback."""
    init.make(str(tmp_path), domain="example.test", hostname="mx.example.test")
    certificate = x509.load_pem_x509_certificate((tmp_path / "tls" / "cert.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["mx.example.test", "localhost", "127.0.0.1", "::1"]


@pytest.mark.parametrize("name", ["mailhost.toml", "passwd", "spool", "tls"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    """One thing of a name that is needed is enough to leave all as it is."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(Failed, match=f"has {name} already; nothing was changed"):
        init.make(str(tmp_path), domain="example.test", hostname="mx.example.test")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_directory_that_has_other_things(tmp_path: Path) -> None:
    """These stay, and are in nobody's way."""
    (tmp_path / "notes").write_text("mine")
    init.make(str(tmp_path), domain="example.test", hostname="example.test")
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_domain_that_is_none(tmp_path: Path) -> None:
    """Nothing is made, and the line says why."""
    with pytest.raises(Failed, match='"not a domain" is not a domain such as'):
        init.make(str(tmp_path / "mail"), domain="not a domain", hostname="example.test")
    assert not (tmp_path / "mail" / "mailhost.toml").exists()


def test_where_nothing_can_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit status 1."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Failed, match="Not a directory"):
        init.make(str(tmp_path / "file" / "mail"), domain="example.test", hostname="example.test")

"""Certificates: what is loaded, what is said of bad ones, and renewal under a running listener."""

from __future__ import annotations

import datetime
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailhost.events import Event, Notice, Trouble, unobserved
from mailhost.service import certificates
from mailhost.service.certificates import CertificateError, ServerCertificate, load_context, make_self_signed

NAMES = ["mx.example.test", "localhost", "127.0.0.1", "::1"]


def write(directory: Path, names: list[str]) -> tuple[str, str]:
    """A self-signed pair of files."""
    certificate, key = make_self_signed(names)
    paths = directory / "cert.pem", directory / "key.pem"
    for path, content in zip(paths, (certificate, key)):
        replacement = path.with_suffix(".new")
        replacement.write_bytes(content)
        os.rename(replacement, path)
    return str(paths[0]), str(paths[1])


def shake_hands(server: Any, client: ssl.SSLObject, to_server: ssl.MemoryBIO, to_client: ssl.MemoryBIO) -> None:
    """Carry octets between an OpenSSL connection and a client until both are satisfied."""
    for _ in range(10):
        for one, waits in ((client, ssl.SSLWantReadError), (server, SSL.WantReadError)):
            try:
                one.do_handshake()
            except waits:
                pass
        if octets := to_server.read():
            server.bio_write(octets)
        try:
            to_client.write(server.bio_read(65536))
        except SSL.WantReadError:
            pass


def presented(certificate: ServerCertificate, authority: str, name: str = "localhost") -> dict[str, Any]:
    """What a client sees that trusts one file; raises as the client does when it does not fit."""
    trusting = ssl.create_default_context(cafile=authority)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    server = certificate.serverConnectionForTLS(None)
    server.set_accept_state()
    shake_hands(server, client, to_server, to_client)
    return client.getpeercert() or {}


@pytest.mark.parametrize("name", NAMES)
def test_self_signed(tmp_path: Path, name: str) -> None:
    """A client that trusts the file is content with each of the names."""
    paths = write(tmp_path, NAMES)
    assert presented(ServerCertificate(*paths, unobserved), paths[0], name)["serialNumber"]


def test_another_name_is_refused_by_clients(tmp_path: Path) -> None:
    """The test above can fail."""
    paths = write(tmp_path, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError):
        presented(ServerCertificate(*paths, unobserved), paths[0], "other.example")


def issue(name: str, serial: int, issuer: tuple[x509.Certificate, Any] | None, *, authority: bool) -> Any:
    """A certificate and its key, signed by the issuer's key or by its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    return certificate, key


def test_the_chain_is_sent(tmp_path: Path) -> None:
    """A client that knows the root only is shown the way to it."""
    root = issue("root", 1, None, authority=True)
    middle = issue("middle", 2, root, authority=True)
    leaf, key = issue("localhost", 3, middle, authority=False)
    pem = serialization.Encoding.PEM
    (tmp_path / "root.pem").write_bytes(root[0].public_bytes(pem))
    (tmp_path / "cert.pem").write_bytes(leaf.public_bytes(pem) + middle[0].public_bytes(pem))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    served = ServerCertificate(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"), unobserved)
    assert presented(served, str(tmp_path / "root.pem"))["serialNumber"] == "03"


def test_tls_1_1_is_refused(tmp_path: Path) -> None:
    """RFC 8996: TLS 1.2 is the least."""
    paths = write(tmp_path, NAMES)
    old = SSL.Context(SSL.TLS_CLIENT_METHOD)
    old.set_max_proto_version(SSL.TLS1_1_VERSION)
    old.set_cipher_list(b"ALL:@SECLEVEL=0")
    client = SSL.Connection(old, None)
    client.set_connect_state()
    server = ServerCertificate(*paths, unobserved).serverConnectionForTLS(None)
    server.set_accept_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    server.bio_write(client.bio_read(65536))
    with pytest.raises(SSL.Error, match="unsupported protocol"):
        server.do_handshake()


def test_what_is_said_of_bad_files(tmp_path: Path) -> None:
    """Each is one line that names the file."""
    certificate, key = write(tmp_path, NAMES)
    (tmp_path / "other").mkdir()
    _, other_key = write(tmp_path / "other", NAMES)
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for paths, said in (
        ((str(tmp_path / "none.pem"), key), rf"{tmp_path}/none.pem: No such file or directory"),
        ((certificate, other_key), rf"{certificate} and {other_key} cannot be used: key values mismatch"),
        ((str(junk), key), rf"{junk}: holds no certificate in PEM form"),
        ((certificate, str(junk)), rf"{junk}: holds no private key in PEM form"),
        ((key, key), rf"{key}: holds no certificate in PEM form"),
    ):
        with pytest.raises(CertificateError, match=said) as caught:
            load_context(*paths)
        assert "\n" not in str(caught.value)


class Reactor(Clock):
    """Runs what is meant for a thread at once."""

    def getThreadPool(self) -> Any:
        return self

    def callInThreadWithCallback(self, done: Any, function: Any, *arguments: Any) -> None:
        try:
            result = function(*arguments)
        except Exception:
            done(False, Failure())
        else:
            done(True, result)

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        function(*arguments)


def test_a_renewed_certificate_is_picked_up(tmp_path: Path) -> None:
    """Within a check's time, without a signal, and with a line in the log."""
    paths = write(tmp_path, NAMES)
    seen: list[Event] = []
    reactor = Reactor()
    served = ServerCertificate(*paths, seen.append)
    served.watch(reactor)
    before = presented(served, paths[0])["serialNumber"]
    write(tmp_path, NAMES)
    reactor.advance(certificates.CHECK_SECONDS)
    assert presented(served, paths[0])["serialNumber"] != before
    assert seen == [Notice(f"certificate {paths[0]} read again")]
    served.unwatch()
    assert not reactor.getDelayedCalls()


def test_a_bad_renewal_leaves_the_old_one(tmp_path: Path) -> None:
    """It is complained of once, and the old certificate stays in use; when it is put right it is taken."""
    paths = write(tmp_path, NAMES)
    (tmp_path / "authority.pem").write_bytes(Path(paths[0]).read_bytes())
    seen: list[Event] = []
    reactor = Reactor()
    served = ServerCertificate(*paths, seen.append)
    served.watch(reactor)
    Path(paths[0]).write_text("half a file")
    reactor.pump([certificates.CHECK_SECONDS] * 3)
    assert presented(served, str(tmp_path / "authority.pem"))
    assert len(seen) == 1
    assert isinstance(seen[0], Trouble)
    write(tmp_path, NAMES)
    reactor.advance(certificates.CHECK_SECONDS)
    assert presented(served, paths[0])
    assert isinstance(seen[1], Notice)


def test_connections_cost_no_file_access(tmp_path: Path) -> None:
    """With the files gone, connections are still made."""
    paths = write(tmp_path, NAMES)
    served = ServerCertificate(*paths, unobserved)
    (tmp_path / "authority.pem").write_bytes(Path(paths[0]).read_bytes())
    for path in paths:
        Path(path).unlink()
    assert presented(served, str(tmp_path / "authority.pem"))
    with pytest.raises(CertificateError):
        served.reload()
    assert presented(served, str(tmp_path / "authority.pem"))

"""
The certificate that listeners show, replaced while they run; and the self-signed one that `mailhost init` makes.

No file is read for a connection: PEM files are read at start, by `reload`, and by `watch`, off the reactor's thread, when they changed.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from mailhost.events import Notice, Observer, Trouble

# A renewal is picked up within this time also when nobody sends SIGHUP.
CHECK_SECONDS = 60.0
SELF_SIGNED_DAYS = 3650

# Forward secrecy and authenticated encryption; all of TLS 1.3's have both.
_TLS_1_2_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!PSK"


class CertificateError(Exception):
    """A certificate or key that cannot be used; one line that names the file."""


def load_context(certificate: str, private_key: str) -> SSL.Context:
    """
    A context of PEM files: TLS 1.2 and later, the chain sent along, session tickets on.

    @raise CertificateError: a file cannot be read, holds something else, or the two do not belong together.
    """
    chain = _parsed(certificate, "certificate", x509.load_pem_x509_certificates)
    key = _parsed(private_key, "private key", lambda pem: serialization.load_pem_private_key(pem, password=None))
    # Twisted's CertificateOptions sets callbacks, which need memory that is writable and executable: a hardened unit has none.
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    # An idle connection gives its buffers back: 34 KB each.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(_TLS_1_2_CIPHERS)
    # Tickets resume sessions; nothing is kept here.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    try:
        context.use_certificate(chain[0])
        for link in chain[1:]:
            context.add_extra_chain_cert(link)
        context.use_privatekey(key)
        context.check_privatekey()
    except SSL.Error as error:
        raise CertificateError(f"{certificate} and {private_key} cannot be used: {_reasons(error)}") from None
    return context


def _reasons(error: SSL.Error) -> str:
    """OpenSSL's own words, such as `key values mismatch` or `ee key too small`."""
    return ", ".join(reason for _library, _function, reason in error.args[0])


def _parsed(path: str, what: str, parse: Any) -> Any:
    try:
        with open(path, "rb") as file:
            return parse(file.read())
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise CertificateError(f"{path}: holds no {what} in PEM form that can be used: {error}") from None


@implementer(IOpenSSLServerConnectionCreator)
class ServerCertificate:
    """What implicit TLS and STARTTLS take their connections from.  Connections that exist keep the context they began with."""

    def __init__(self, certificate: str, private_key: str, observer: Observer) -> None:
        """@raise CertificateError: as `load_context` does."""
        self._files = (certificate, private_key)
        self._observer = observer
        self._seen = self._state()
        self._context = load_context(*self._files)
        self._checks: LoopingCall | None = None

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)

    def reload(self) -> None:
        """Read the files again.  @raise CertificateError: the one in use stays."""
        seen = self._state()
        self._context = load_context(*self._files)
        self._seen = seen

    def watch(self, reactor: Any) -> None:
        """Look at the files once in a while, in a thread, until `unwatch`."""
        self._checks = LoopingCall(self._check, reactor)
        self._checks.clock = reactor
        self._checks.start(CHECK_SECONDS, now=False)

    def unwatch(self) -> None:
        if self._checks is not None and self._checks.running:
            self._checks.stop()

    async def _check(self, reactor: Any) -> None:
        try:
            changed = await deferToThreadPool(reactor, reactor.getThreadPool(), self._reload_changed)
        except CertificateError as error:
            self._observer(Trouble("a renewed certificate cannot be used; the old one stays", error))
        else:
            if changed:
                self._observer(Notice(f"certificate {self._files[0]} read again"))

    def _reload_changed(self) -> bool:
        state = self._state()
        if state == self._seen:
            return False
        # Also when it cannot be used: it is complained of once, not once a minute.
        self._seen = state
        self._context = load_context(*self._files)
        return True

    def _state(self) -> list[tuple[int, int, int] | None]:
        return [_identity(path) for path in self._files]


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


# ---------------------------------------------------------------------------------------------------------- self-signed


def make_self_signed(names: Sequence[str]) -> tuple[bytes, bytes]:
    """
    A certificate for trying things out.

    @param names: host names and IP addresses, the first of them the subject.
    @return: certificate and private key, both PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        # A client told to trust this very file wants to see a CA in it.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode("ascii"))

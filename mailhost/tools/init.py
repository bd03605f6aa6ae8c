"""`mailhost init`: a directory from which a host can run at once, on loopback and ports that need no privileges."""

from __future__ import annotations

import os

from mailhost.cred import passwd_file
from mailhost.service.certificates import make_self_signed
from mailhost.service.config import ConfigError, load
from mailhost.tools.main import Failed

_CONFIGURATION = """\
# Made by `mailhost init`.  docs/configuration.md and etc/mailhost/mailhost.toml explain every key.
hostname = "{hostname}"
domains = ["{domain}"]
spool = "log:spool"                 # relative paths are relative to this file
checkers = ["passwd:passwd"]

[tls]
certificate = "tls/cert.pem"        # self-signed: clients have to be told to trust it
private_key = "tls/key.pem"

# Loopback only, and no port that needs privileges: nobody else can reach this host until you change that.
[[listen]]
protocol = "smtp"
endpoint = "tcp:2525:interface=127.0.0.1"
tls = "starttls"

[[listen]]
protocol = "submission"
endpoint = "tcp:2587:interface=127.0.0.1"
tls = "starttls"

[[listen]]
protocol = "submission"
endpoint = "tcp:2465:interface=127.0.0.1"
tls = "implicit"

[[listen]]
protocol = "pop3"
endpoint = "tcp:2110:interface=127.0.0.1"
tls = "starttls"

[[listen]]
protocol = "pop3"
endpoint = "tcp:2995:interface=127.0.0.1"
tls = "implicit"
"""


def make(directory: str, *, domain: str, hostname: str) -> str:
    """
    Make a host's directory; what is there already stays as it is.

    @return: the path of the configuration.
    @raise Failed: something of that name is there, or cannot be made.
    """
    path = os.path.join(directory, "mailhost.toml")
    made = ("mailhost.toml", "spool", "passwd", "tls")
    if there := [name for name in made if os.path.lexists(os.path.join(directory, name))]:
        raise Failed(f"{directory} has {', '.join(there)} already; nothing was changed")
    try:
        _fill(directory, domain, hostname)
    except OSError as error:
        raise Failed(f"{error.filename or directory}: {error.strerror}") from None
    except ConfigError as error:
        raise Failed(str(error)) from None
    return path


def _fill(directory: str, domain: str, hostname: str) -> None:
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "mailhost.toml")
    _write(path, _CONFIGURATION.format(domain=domain, hostname=hostname).encode(), 0o644)
    try:
        load(path)
    except ConfigError:
        os.unlink(path)
        raise
    names = list(dict.fromkeys([hostname, "localhost", "127.0.0.1", "::1"]))
    certificate, private_key = make_self_signed(names)
    os.mkdir(os.path.join(directory, "tls"))
    _write(os.path.join(directory, "tls", "cert.pem"), certificate, 0o644)
    _write(os.path.join(directory, "tls", "key.pem"), private_key, 0o600)
    passwd_file.create(os.path.join(directory, "passwd"))
    spool = os.path.join(directory, "spool")
    os.mkdir(spool)
    os.chmod(spool, 0o2770)


def _write(path: str, content: bytes, mode: int) -> None:
    """A new file that nobody else could open before its mode was right."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)

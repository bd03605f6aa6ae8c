"""`mailhost quickstart`: from nothing to a host that runs, with an account and commands to try it with."""

from __future__ import annotations

import os
import secrets
import shlex

from mailhost.cred import passwd_file
from mailhost.service.config import Config
from mailhost.tools import init
from mailhost.tools.accounts import accounts_file, configuration
from mailhost.tools.main import Failed
from mailhost.tools.run import run

_DOMAIN = "example.test"
_ADDRESS = f"ann@{_DOMAIN}"

_TRY = """\
Send a message, then collect it:

  printf 'From: bob@far.example\\r\\nSubject: Hello\\r\\n\\r\\nIt works.\\r\\n' |
    curl -sS smtp://127.0.0.1:{smtp} --mail-from bob@far.example --mail-rcpt {address} -T -

  curl -sS --ssl-reqd --cacert {certificate} --user '{address}:{password}' pop3://127.0.0.1:{pop3}/1
  curl -sS --cacert {certificate} --user '{address}:{password}' pop3s://127.0.0.1:{pop3s}/1

Ctrl-C ends it.
"""


def quickstart(directory: str) -> int:
    """Runs in the foreground.  @return: the exit status."""
    path = os.path.join(directory, "mailhost.toml")
    if not os.path.exists(path):
        init.make(directory, domain=_DOMAIN, hostname=_DOMAIN)
    config = configuration(path)
    password = _add_account(accounts_file(config))
    certificate = shlex.quote(os.path.join(directory, "tls", "cert.pem"))
    shown = password or "PASSWORD"
    print(f"host       {os.path.abspath(directory)}")
    print(f"account    {_ADDRESS}")
    print(f"password   {password or 'as it was shown the first time; mailhost user password changes it'}\n")
    print(_TRY.format(address=_ADDRESS, certificate=certificate, password=shown, **_ports(config)), flush=True)
    return run(["--config", path])


def _ports(config: Config) -> dict[str, str]:
    """Where the commands connect to: the configuration may have been changed since it was made."""

    def port(protocol: str, tls: str) -> str:
        found = [one.endpoint for one in config.listen if (one.protocol, one.tls) == (protocol, tls)]
        return found[0].split(":")[1] if found else "PORT"

    return {"smtp": port("smtp", "starttls"), "pop3": port("pop3", "starttls"), "pop3s": port("pop3", "implicit")}


def _add_account(file: str) -> str | None:
    """@return: the new account's password, or None if the account was there."""
    try:
        if _ADDRESS in passwd_file.names(file):
            return None
        password = secrets.token_urlsafe(12)
        passwd_file.add(file, _ADDRESS, password)
    except (OSError, ValueError) as error:
        raise Failed(f"{file}: {error}") from None
    return password

"""Dovecot's POP3 server with a configuration, directories and ports of its own, for tests that compare.  Needs root, as Dovecot does."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

_CONFIGURATION = """\
base_dir = {root}/run
state_dir = {root}/state
log_path = {root}/log
protocols = pop3
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
auth_failure_delay = 0
mail_location = maildir:~/Maildir
mail_max_userip_connections = 0
first_valid_uid = 1
first_valid_gid = 1
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={root}/mail/%n
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {port}
  }}
  service_count = 0
  process_min_avail = 1
}}
service pop3 {{
  service_count = 0
}}
"""
PASSWORD = "secret"
"""Everybody's."""
_NOBODY = 65534
_START_SECONDS = 20


def why_not() -> str:
    """Why Dovecot cannot be run here; empty if it may."""
    if os.geteuid() != 0:
        return "Dovecot is started as root"
    if shutil.which("dovecot", path="/usr/sbin:/usr/bin") is None:
        return "Dovecot is not installed"
    version = subprocess.run(["/usr/sbin/dovecot", "--version"], capture_output=True, text=True, check=False).stdout
    return "" if version.startswith("2.3") else f"Dovecot 2.3 is configured here, not {version.strip()}"


class Dovecot:
    """Running until `close`."""

    def __init__(self, root: Path, port: int) -> None:
        """
        @param root: a directory that every user may enter.
        @raise OSError: it does not start here.
        """
        self.root, self.port = root, port
        for path in (root, *root.parents):
            if path != path.parent and path.stat().st_uid == os.geteuid() and path.parts[:2] == ("/", "tmp"):
                path.chmod(path.stat().st_mode | 0o011)
        (root / "mail").mkdir()
        os.chown(root / "mail", _NOBODY, _NOBODY)
        configuration = root / "dovecot.conf"
        configuration.write_text(_CONFIGURATION.format(root=root, port=port, uid=_NOBODY, password=PASSWORD))
        self._process = subprocess.Popen(
            ["/usr/sbin/dovecot", "-F", "-c", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._wait()
        except OSError:
            self.close()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5) as probe:
                    if probe.recv(3) == b"+OK":
                        return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self.root / "log"
                raise OSError(f"Dovecot does not answer: {log.read_text()[-2000:] if log.exists() else 'no log'}")
            time.sleep(0.05)

    def put(self, address: str, messages: list[bytes]) -> None:
        """Into a new Maildir, in this order, each with CRLF line ends as given."""
        maildir = self.root / "mail" / address.partition("@")[0] / "Maildir"
        for name in ("tmp", "new", "cur"):
            (maildir / name).mkdir(parents=True)
        for number, message in enumerate(messages, 1):
            path = maildir / "cur" / f"{number:06d}.M1P1.host,S={len(message)}:2,"
            path.write_bytes(message)
            os.utime(path, (1_600_000_000 + number,) * 2)
        for path in (maildir.parent, *maildir.parent.rglob("*")):
            os.chown(path, _NOBODY, _NOBODY)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)

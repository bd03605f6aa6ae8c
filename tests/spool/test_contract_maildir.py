"""The spool contract, on Maildirs."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mailhost.interfaces import ISpool
from mailhost.spool.maildir.spool import MaildirSpool
from tests.spool.contract import BoundedMemoryContract, SpoolContract


class MaildirSpoolTests(SpoolContract, BoundedMemoryContract, TestCase):
    """With its usual sizes."""

    options: dict[str, Any] = {}  # noqa: RUF012 (never changed)

    def make_spool(self) -> ISpool:
        self.directory = tempfile.mkdtemp(prefix="spool-")
        self.addCleanup(shutil.rmtree, self.directory)
        return MaildirSpool(self.directory, reactor=reactor, **self.options)

    def same_spool(self, spool: ISpool) -> ISpool:
        return MaildirSpool(self.directory, reactor=reactor, **self.options)


class SmallAndElsewhereTests(MaildirSpoolTests):
    """With most messages large, and Maildirs where Dovecot's home directories have them."""

    options = {"large_octets": 128, "pattern": "users/%u/Maildir"}  # noqa: RUF012

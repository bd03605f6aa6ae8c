"""The spool contract, on the log."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mailhost.interfaces import ISpool
from mailhost.spool.log.spool import LogSpool
from tests.spool.contract import BoundedMemoryContract, SpoolContract


class LogSpoolTests(SpoolContract, BoundedMemoryContract, TestCase):
    """With its usual sizes."""

    sizes: dict[str, Any] = {}  # noqa: RUF012 (never changed)

    def make_spool(self) -> ISpool:
        self.directory = tempfile.mkdtemp(prefix="spool-")
        self.addCleanup(shutil.rmtree, self.directory)
        return LogSpool(self.directory, reactor=reactor, **self.sizes)

    def same_spool(self, spool: ISpool) -> ISpool:
        return LogSpool(self.directory, reactor=reactor, **self.sizes)


class SmallSegmentsTests(LogSpoolTests):
    """With a new segment every few messages, and most messages large."""

    sizes = {"segment_octets": 1024, "large_octets": 128}  # noqa: RUF012

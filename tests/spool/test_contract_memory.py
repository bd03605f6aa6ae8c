"""The spool contract, on the spool in memory."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mailhost.interfaces import ISpool
from mailhost.spool.memory import MemorySpool
from tests.spool.contract import SpoolContract


class MemorySpoolTests(SpoolContract, TestCase):
    def make_spool(self) -> ISpool:
        return MemorySpool(reactor=reactor)

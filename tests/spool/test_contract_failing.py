"""The spool contract, on a failing spool that was not asked to fail."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mailhost.interfaces import ISpool
from mailhost.spool.failing import FailingSpool
from mailhost.spool.memory import MemorySpool
from tests.spool.contract import SpoolContract


class FailingSpoolTests(SpoolContract, TestCase):
    def make_spool(self) -> ISpool:
        return FailingSpool(MemorySpool(reactor=reactor))

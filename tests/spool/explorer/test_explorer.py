"""
Nothing that was promised is lost, whatever a power failure leaves of what was not synced.

Each workload is run once on a simulated disk; then the power fails at each instant of it, in as many ways as the effort allows.
"""

from __future__ import annotations

import pytest

from tests.spool.explorer import histories
from tests.spool.explorer.crashes import Effort
from tests.spool.explorer.explorer import explore, recorded
from tests.spool.explorer.kinds import Log
from tests.spool.explorer.workloads import Kind, Workload

SHORT = Effort(all_subsets_up_to=2, samples=6)
LONG = Effort(all_subsets_up_to=12, samples=2000)
PLANTED = Effort(all_subsets_up_to=0, samples=3)

KINDS: dict[str, Kind] = {"log": Log(), "log-in-turn": Log(in_turn=True)}
CASES = [
    pytest.param(kind, work, id=f"{name}-{work.__name__}") for name, kind in KINDS.items() for work in histories.LOG
]


@pytest.mark.parametrize(("kind", "workload"), CASES)
def test_every_promise_is_kept(kind: Kind, workload: Workload) -> None:
    """Whatever was acknowledged is there once and whole, whatever was not is there whole or not at all, and goes on from there."""
    report = explore(kind, workload, SHORT)
    assert not report.violations, "\n".join(map(str, report.violations))
    assert report.crashes > len(report.world.disk.operations)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "workload"), CASES)
def test_every_promise_is_kept_long(kind: Kind, workload: Workload) -> None:
    """The same, with all subsets of up to twelve unsynced operations and 2,000 samples of what more of them, and torn writes, leave."""
    report = explore(kind, workload, LONG, seed=2)
    assert not report.violations, "\n".join(map(str, report.violations))


# Where the log asks for a sync, and a workload in which somebody would miss it.
LOG_SYNCS = {
    "Layout._write_version: files.sync(fd)": histories.delivery,
    "Layout.prepare: files.sync_directory(os.path.dirname(self.root))": histories.delivery,
    "Layout.prepare: files.sync_directory(self.root)": histories.delivery,
    "Layout.prepare: files.sync_directory(self.root) (2)": histories.delivery,
    "Segment.create: files.sync_directory(layout.segments)": histories.delivery,
    "Writer.write: segment.sync(end)": histories.delivery,
    "LargeFile._finish_in_thread: files.sync(self._fd)": histories.large,
    "LargeFile._finish_in_thread: files.sync_directory(self._layout.segments)": histories.large,
    "LargeFile._remove: self._files.sync_directory(self._layout.segments)": histories.failures,
    "Segment._state: self.sync(self.end + len(octets))": histories.failures,
    "Recovery._replay: files.sync(fd)": histories.kills,
    "Recovery.take_over: self._files.sync_directory(self._layout.segments)": histories.kills,
}

# All that a seal says follows from what was synced before it; one that is lost is written again.
NO_PROMISE_RESTS_ON = {"Segment.seal: self.sync(self.end + len(octets))"}


@pytest.mark.parametrize("site", LOG_SYNCS)
def test_each_sync_is_missed(site: str) -> None:
    """With any one sync left out that a promise rests on, the explorer finds the promise broken."""
    report = explore(Log(), LOG_SYNCS[site], PLANTED, swallowed=frozenset([site]), at_most=1)
    assert site in report.world.sites
    assert report.violations


@pytest.mark.parametrize("site", NO_PROMISE_RESTS_ON)
def test_without_a_sync_that_no_promise_rests_on(site: str) -> None:
    """Left out, it is missed by nobody."""
    for workload in histories.restarts, histories.kills:
        report = explore(Log(), workload, PLANTED, swallowed=frozenset([site]))
        assert site in report.world.sites
        assert not report.violations, "\n".join(map(str, report.violations))


def test_each_sync_is_known() -> None:
    """No sync is asked for anywhere that the tests above do not leave out."""
    sites = set().union(*(recorded(Log(), work).sites for work in histories.LOG))
    assert sites == LOG_SYNCS.keys() | NO_PROMISE_RESTS_ON

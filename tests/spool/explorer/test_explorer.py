"""
Nothing that was promised is lost, whatever a power failure leaves of what was not synced.

Each workload is run once on a simulated disk; then the power fails at each instant of it, in as many ways as the effort allows.
"""

from __future__ import annotations

import pytest

from tests.spool.explorer import histories
from tests.spool.explorer.crashes import Effort
from tests.spool.explorer.explorer import explore, recorded
from tests.spool.explorer.kinds import Log, Maildirs
from tests.spool.explorer.workloads import Kind, Workload

SHORT = Effort(all_subsets_up_to=0, samples=2, instants=25)
LONG = Effort(all_subsets_up_to=12, samples=2000, partial=100, instants=100)
PLANTED = Effort(all_subsets_up_to=0, samples=6)

KINDS: list[tuple[str, Kind, list[Workload]]] = [
    ("log", Log(), histories.LOG),
    ("log-in-turn", Log(in_turn=True), [histories.delivery, histories.deletion]),
    ("log-that-keeps", Log(keep_deleted_seconds=1e6), [histories.undelete, histories.compaction]),
    ("maildir", Maildirs(), histories.MAILDIR),
]
CASES = [pytest.param(kind, work, id=f"{name}-{work.__name__}") for name, kind, works in KINDS for work in works]


@pytest.mark.parametrize(("kind", "workload"), CASES)
def test_every_promise_is_kept(kind: Kind, workload: Workload) -> None:
    """Whatever was acknowledged is there once and whole, whatever was not is there whole or not at all, and goes on from there."""
    report = explore(kind, workload, SHORT)
    assert not report.violations, "\n".join(map(str, report.violations))
    assert report.crashes > 50


@pytest.mark.long
@pytest.mark.parametrize(("kind", "workload"), CASES)
def test_every_promise_is_kept_long(kind: Kind, workload: Workload) -> None:
    """The same, with all subsets of up to twelve unsynced operations and 2,000 samples of what more of them, and torn writes, leave."""
    report = explore(kind, workload, LONG, seed=2)
    assert not report.violations, "\n".join(map(str, report.violations))


# Where the log asks for a sync, and a workload in which somebody would miss it.
LOG_SYNCS = {
    "layout.Layout.write_version: files.sync(fd)": histories.delivery,
    "layout.Layout.prepare: files.sync_directory(os.path.dirname(self.root))": histories.delivery,
    "layout.Layout.prepare: files.sync_directory(self.root)": histories.delivery,
    "layout.Layout.prepare: files.sync_directory(self.root) (2)": histories.delivery,
    "segments.Segment.create: files.sync_directory(layout.segments)": histories.delivery,
    "writer.Writer.write: segment.sync(end)": histories.delivery,
    "large.LargeFile._finish_in_thread: files.sync(self._fd)": histories.large,
    "large.LargeFile._finish_in_thread: files.sync_directory(self._layout.segments)": histories.large,
    "large.LargeFile._remove: self._files.sync_directory(self._layout.segments)": histories.failures,
    "segments.Segment._state: self.sync(self.end + len(octets))": histories.failures,
    "recovery.Recovery._replay: files.sync(fd)": histories.kills,
    "recovery.Recovery.take_over: self._files.sync_directory(self._layout.segments)": histories.kills,
    "successor.Successor._sync: self._files.sync(self._fd)": histories.compaction,
    "successor.Successor.finish: self._files.sync_directory(self._layout.segments)": histories.compaction,
    "compaction.Compaction._unlink: self._files.sync_directory(self._layout.segments)": histories.compaction,
}

MAILDIR_SYNCS = {
    "layout.Layout.prepare: files.sync_directory(os.path.dirname(root.path))": histories.delivery,
    "layout.Layout.prepare: files.sync_directory(root.own)": histories.delivery,
    "layout.Layout.prepare: files.sync_directory(root.path)": histories.maildirs_of_others,
    "catalogue.Catalogue._make: files.sync_directory(directory)": histories.delivery,
    "catalogue.Catalogue._move: self._files.sync_directory(directory)": histories.names,
    "syncs.Syncs._file: self._files.sync(fd)": histories.delivery,
    "syncs.Syncs._directory: self._files.sync_directory(path)": histories.delivery,
    "group.Group._attempt: work(*arguments)": histories.failures_of_maildirs,
    "large.LargeFile._finish_in_thread: self._files.sync(fd)": histories.large,
    "large.LargeFile._finish_in_thread: self._files.sync(self._fd)": histories.large,
    "staged.Staged.state: files.sync(fd)": histories.delivery,
    "staged.Staged.state: files.sync_directory(self._root.staging)": histories.delivery,
    "staged.Staged.settle: self._files.sync_directory(self._root.staging)": histories.deletion,
    "staged._finish: files.sync_directory(layout.root.staging)": histories.kills_of_maildirs,
    "deletions._state: files.sync(fd)": histories.deletion,
    "deletions._state: files.sync_directory(path)": histories.deletion,
    "deletions._sync_parts: files.sync_directory(os.path.join(path, part))": histories.deletion,
    "deletions._withdraw: files.sync_directory(path)": histories.failures_of_maildirs,
    "deletions._remove_one: files.sync_directory(os.path.dirname(there))": histories.restarts,
    "deletions._remove_one: files.sync_directory(os.path.dirname(there)) (2)": histories.failures_of_maildirs,
}

MISSED = [pytest.param(Log(), site, work, id=f"log-{site}") for site, work in LOG_SYNCS.items()]
MISSED += [pytest.param(Maildirs(), site, work, id=f"maildir-{site}") for site, work in MAILDIR_SYNCS.items()]

NO_PROMISE_RESTS_ON = {
    # All that a seal says follows from what was synced before it; one that is lost is written again.
    "segments.Segment.seal: self.sync(self.end + len(octets))": (Log(), histories.kills),
    # The same renames are made durable where they come from, and no file system loses one of both ends only.
    "staged._finish: files.sync_directory(directory)": (Maildirs(), histories.kills_of_maildirs),
    # It keeps a stale id from giving two maildrops one.  The explorer found that once, before ids were written whole or not at all,
    # and finds nothing since; the sync stays until that is proved and not only seen.
    "catalogue.Catalogue._state_id: files.sync(fd)": (Maildirs(), histories.deletion),
    # An intent that comes back names what is gone.
    "deletions.finish: files.sync_directory(path)": (Maildirs(), histories.kills_of_maildirs),
}


@pytest.mark.parametrize(("kind", "site", "workload"), MISSED)
def test_each_sync_is_missed(kind: Kind, site: str, workload: Workload) -> None:
    """With any one sync left out that a promise rests on, the explorer finds the promise broken."""
    report = explore(kind, workload, PLANTED, swallowed=frozenset([site]), at_most=1)
    assert site in report.world.sites
    assert report.violations


@pytest.mark.long
@pytest.mark.parametrize("site", NO_PROMISE_RESTS_ON)
def test_without_a_sync_that_no_promise_rests_on(site: str) -> None:
    """Left out, it is missed by nobody."""
    kind, workload = NO_PROMISE_RESTS_ON[site]
    report = explore(kind, workload, PLANTED, swallowed=frozenset([site]))
    assert site in report.world.sites
    assert not report.violations, "\n".join(map(str, report.violations))


@pytest.mark.parametrize(
    ("kind", "workloads", "known"),
    [
        pytest.param(Log(), histories.LOG, LOG_SYNCS, id="log"),
        pytest.param(Maildirs(), histories.MAILDIR, MAILDIR_SYNCS, id="maildir"),
    ],
)
def test_each_sync_is_known(kind: Kind, workloads: list[Workload], known: dict[str, Workload]) -> None:
    """No sync is asked for anywhere that the tests above do not leave out."""
    sites = set().union(*(recorded(kind, workload).sites for workload in workloads))
    assert sites - NO_PROMISE_RESTS_ON.keys() == known.keys()

"""When a sync is done in the reactor's turn, and when in the thread."""

from __future__ import annotations

from twisted.internet.task import Clock

from mailhost.spool.log.pace import Pace

SHORT, SLOW, LONG = 0.0002, 0.002, 0.021


def in_turn() -> tuple[Pace, Clock]:
    clock = Clock()
    pace = Pace(clock.seconds)
    for _ in range(20):
        assert not pace.in_turn
        pace.took_in_thread(SHORT)
    assert pace.in_turn
    return pace, clock


def test_it_begins_in_the_thread() -> None:
    """Nothing is known of the disk at first; after twenty syncs, one of them short, the turn is tried."""
    in_turn()


def test_a_slow_disk_never_comes_into_the_turn() -> None:
    """With no short sync at all the thread keeps them."""
    pace = Pace(Clock().seconds)
    for _ in range(2000):
        pace.took_in_thread(SLOW)
    assert not pace.in_turn


def test_one_long_sync_ends_it_for_a_minute() -> None:
    """A sync of twenty milliseconds moves the work away at once, and for a minute."""
    pace, clock = in_turn()
    pace.took_in_turn(LONG)
    assert not pace.in_turn
    clock.advance(59)
    for _ in range(20):
        pace.took_in_thread(SHORT)
    assert not pace.in_turn
    clock.advance(2)
    pace.took_in_thread(SHORT)
    assert pace.in_turn


def test_more_than_one_in_a_hundred() -> None:
    """Ten slow syncs of the last thousand are borne, eleven are not."""
    pace, _ = in_turn()
    for number in range(3000):
        pace.took_in_turn(SLOW if number % 100 == 0 else SHORT)
        assert pace.in_turn
    for _ in range(2):  # the first takes the place of a slow one that is forgotten with it
        pace.took_in_turn(SLOW)
    assert not pace.in_turn


def test_what_is_long_ago_is_forgotten() -> None:
    """Ten slow syncs do not count beyond a thousand others."""
    pace, _ = in_turn()
    for _ in range(10):
        pace.took_in_turn(SLOW)
    for _ in range(1000):
        pace.took_in_turn(SHORT)
    for _ in range(10):
        pace.took_in_turn(SLOW)
    assert pace.in_turn

"""The spool that a configuration names: for the host, and for tools that work beside it."""

from __future__ import annotations

from typing import Any

from mailhost.events import Observer
from mailhost.interfaces import ISpool
from mailhost.service.config import Config
from mailhost.spool.log.spool import LogSpool
from mailhost.spool.maildir.spool import MaildirSpool
from mailhost.spool.memory import MemorySpool


def make_spool(config: Config, *, reactor: Any, observer: Observer) -> ISpool:
    directory = config.spool_directory
    if directory is None:
        return MemorySpool(reactor=reactor, observer=observer)
    if config.maildir_pattern is not None:
        return MaildirSpool(directory, reactor=reactor, observer=observer, pattern=config.maildir_pattern)
    return make_log_spool(config, directory, reactor=reactor, observer=observer)


def make_log_spool(config: Config, directory: str, *, reactor: Any, observer: Observer) -> LogSpool:
    """All processes of one spool are to agree about it: one that holds back less deleted mail gives back the space of all."""
    space = config.space
    return LogSpool(
        directory,
        reactor=reactor,
        observer=observer,
        segment_octets=space.segment_octets,
        compact_octets_per_second=space.compact_octets_per_second,
        keep_deleted_seconds=space.keep_deleted_seconds,
        floor_octets=space.floor_octets,
        reserve_octets=space.reserve_octets,
    )

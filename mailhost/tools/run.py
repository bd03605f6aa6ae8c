"""
`mailhost run`: what `twistd --nodaemon --pidfile= mailhost` does, with a cheap log and an exit status that tells of late failures.

twistd's own machinery runs it, so its signals and shutdown are the known ones; only the search for plugins is left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin
from twisted.python import usage
from twisted.scripts import twistd
from twisted.scripts._twistd_unix import ServerOptions
from zope.interface import implementer

from mailhost.service.assemble import EVERYTHING
from mailhost.service.config import Config
from mailhost.service.observers import LineWriter, TwistedLines, as_json, as_text
from mailhost.service.tap import Maker, Options, Program
from mailhost.tools.main import Failed
from mailhost.tools.owner import owner_of

_STANDARD_OUTPUT = 1


class HostOptions(Options):
    """The plugin's, called by another name."""

    def getSynopsis(self) -> str:
        return f"Usage: mailhost run {self.synopsis}"


class RunOptions(ServerOptions):
    """twistd's, with one subcommand, ours: twistd itself would look for plugins."""

    @property
    def subCommands(self) -> list[tuple[str, None, Callable[[], usage.Options], str]]:
        return [("mailhost", None, HostOptions, "A mail host.")]


@implementer(IPlugin, IServiceMaker)
class Runner:
    """The twistd plugin for this one run: it remembers what it made."""

    tapname = "mailhost"
    description = "A mail host."
    options = HostOptions

    def __init__(self) -> None:
        self.program: Program | None = None
        self.writer: LineWriter | None = None
        self._maker = Maker(EVERYTHING, self._lines)

    def makeService(self, options: Options) -> Program:
        self.program = self._maker.makeService(options)
        _leave_root(self.program.config, options.parent)
        return self.program

    def log(self) -> TwistedLines:
        """Asked for by twistd once the service is made."""
        assert self.writer is not None
        return TwistedLines(self.writer)

    def _lines(self, config: Config, reactor: Any) -> LineWriter:
        self.writer = LineWriter(reactor, _STANDARD_OUTPUT, as_json if config.log == "json" else as_text)
        # The last lines come when no turn follows.
        reactor.addSystemEventTrigger("after", "shutdown", self.writer.flush)
        return self.writer


def _leave_root(config: Config, options: Any) -> None:
    """Root binds the ports; then the process goes on as the user to whom the spool belongs."""
    if os.geteuid() == 0 and config.spool_directory is not None:
        user, group = owner_of(config.spool_directory)
        if user != 0:
            options["uid"], options["gid"] = user, group


def run(argv: Sequence[str]) -> int:
    """
    Run until a signal ends it.

    @return: the exit status: 1 when the host could not start or could not go on.
    """
    options = RunOptions()
    try:
        options.parseOptions(["--nodaemon", "--pidfile=", "mailhost", *argv])
    except usage.UsageError as error:
        raise Failed(f"{error}; see mailhost run --help") from None
    runner = Runner()
    options.loadedPlugins = {"mailhost": runner}
    options["logger"] = runner.log
    try:
        twistd.runApp(options)
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            raise Failed(leaving.code) from None
        return int(leaving.code or 0)
    finally:
        if runner.writer is not None:
            runner.writer.flush()
    if runner.program is not None and runner.program.failure is not None:
        raise Failed(runner.program.failure)
    return 0

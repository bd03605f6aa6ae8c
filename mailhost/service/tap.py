"""
The host as a program: options, one process's signals, umask and exit status; for `twistd`, `twist` and `mailhost run`.

`makeService` opens nothing and binds nothing, since it may run as root before privileges are dropped.  What an operator has to put right
ends it as SystemExit with one line for each mistake, which twistd turns into exit status 1.  Once the reactor runs nobody can
be told that way: a start that fails later is remembered in `Program.failure`, and `mailhost run` exits with status 1 for it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.application.service import Service
from twisted.cred import strcred
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python import usage
from twisted.python.failure import Failure

from mailhost.events import Bug, Notice, Observer, Trouble
from mailhost.refusal import Refusal
from mailhost.service import config as configuration
from mailhost.service.assemble import EVERYTHING, MAIL_IN, MAIL_OUT, Assembly, Given
from mailhost.service.certificates import CertificateError
from mailhost.service.config import Config, ConfigError
from mailhost.service.host import MailHost
from mailhost.service.listen import CannotListen
from mailhost.service.notify import Notifier
from mailhost.service.observers import explain, to_twisted
from mailhost.service.signals import Hangup

# Spool files belong to one user and one group, and to nobody else.
UMASK = 0o007


class Options(usage.Options, strcred.AuthOptionMixin):
    """The options of `twistd mailhost`, of its two siblings and of `mailhost run`."""

    synopsis = "[--config FILE | --domain DOMAIN --smtp ENDPOINT --pop3 ENDPOINT --auth TYPE[:ARGUMENT] ...]"
    longdesc = "A mail host: mail in by SMTP, durable in one spool, out by POP3.  Without --config the other options say enough."

    optFlags: ClassVar[list[list[Any]]] = [
        ["plaintext-login", None, "Allow passwords in the clear before TLS: for loopback and tests."],
    ]
    optParameters: ClassVar[list[list[Any]]] = [
        ["config", "c", None, "The configuration file."],
        ["hostname", None, None, "What the host calls itself; the first domain unless given."],
        ["spool", None, None, "Where mail is kept, such as log:/var/lib/mailhost/spool."],
        ["certificate", None, None, "PEM file of the certificate and its chain; offers STARTTLS and STLS."],
        ["private-key", None, None, "PEM file of the certificate's private key."],
    ]
    compData = usage.Completions(optActions={"config": usage.CompleteFiles("*.toml")})

    def __init__(self) -> None:
        super().__init__()
        self["domains"] = []
        self["listen"] = []

    def opt_domain(self, domain: str) -> None:
        """A domain whose mail is kept here.  May be repeated."""
        self["domains"].append(domain)

    def opt_smtp(self, endpoint: str) -> None:
        """Take mail in at this endpoint, such as tcp:25.  May be repeated."""
        self["listen"].append({"protocol": "smtp", "endpoint": endpoint})

    def opt_pop3(self, endpoint: str) -> None:
        """Give mail out at this endpoint, such as tcp:110.  May be repeated."""
        self["listen"].append({"protocol": "pop3", "endpoint": endpoint})

    def postOptions(self) -> None:
        said = [name for name in _WITHOUT_FILE if self[name]]
        if self["config"] and said:
            names = ", ".join(f"--{_FLAG.get(name, name)}" for name in said)
            raise usage.UsageError(f"--config says where to listen and for whom; it cannot stand with {names}")
        if not self["config"]:
            self._check_complete()

    def _check_complete(self) -> None:
        missing = [f"--{_FLAG.get(name, name)}" for name in ("domains", "spool", "listen") if not self[name]]
        if not self.get("credCheckers"):
            missing.append("--auth, such as --auth passwd:/etc/mailhost/passwd")
        if missing:
            raise usage.UsageError(f"no --config; without it these are needed: {', '.join(missing)}")


# What mistakes are said to stand in where there is no file.
_OPTIONS = "options"
_WITHOUT_FILE = ("domains", "listen", "hostname", "spool", "certificate", "private-key", "plaintext-login")
_FLAG = {"domains": "domain", "listen": "smtp or --pop3"}


def read_config(options: Options) -> Config:
    """@raise ConfigError: see there."""
    if options["config"]:
        return configuration.load(options["config"])
    tls = "starttls" if options["certificate"] else "none"
    common = {"tls": tls, "plaintext_login": bool(options["plaintext-login"])}
    document: dict[str, Any] = {
        "hostname": options["hostname"] or options["domains"][0],
        "domains": options["domains"],
        "spool": options["spool"],
        "checkers": [],
        "listen": [{**listen, **common} for listen in options["listen"]],
    }
    if options["certificate"] or options["private-key"]:
        document["tls"] = {"certificate": options["certificate"], "private_key": options["private-key"]}
    return configuration.from_document(document, source=_OPTIONS, directory=os.getcwd())


class Maker:
    """What a twistd plugin names: `Options` and `makeService` for the listeners of some protocols."""

    def __init__(
        self, protocols: frozenset[str], observer_for: Callable[[Config, Any], Observer] | None = None
    ) -> None:
        """@param observer_for: what to do with events; without it they go to `twisted.logger`."""
        self.Options = Options
        self._protocols = protocols
        self._observer_for = observer_for or (lambda config, reactor: to_twisted())

    def makeService(self, options: Options) -> Program:
        """@raise SystemExit: with what the operator has to put right."""
        from twisted.internet import reactor

        try:
            config = read_config(options)
        except ConfigError as error:
            raise SystemExit(str(error)) from None
        assembly = Assembly(
            reactor=reactor,
            observer=self._observer_for(config, reactor),
            protocols=self._protocols,
            given=Given(checkers=options.get("credCheckers") or None),
        )
        try:
            host = assembly.host(config)
        except (ConfigError, CertificateError) as error:
            raise SystemExit(configuration.located(options["config"] or _OPTIONS, error)) from None
        parent: Any = options.parent or {}
        return Program(
            host,
            assembly,
            reactor=reactor,
            config_path=options["config"] and os.path.abspath(options["config"]),
            umask=UMASK if parent.get("umask") is None else None,
        )


mailhost = Maker(EVERYTHING)
mailhost_smtp = Maker(MAIL_IN)
mailhost_pop3 = Maker(MAIL_OUT)


def _calm_collector() -> None:
    """
    Let Python's collector of reference cycles look less often, and never again at what was made during the start.

    By default it runs after 700 new objects, many times for each group of messages, and finds nothing: a tenth of all CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class Program(Service):
    """A mail host that has a process to itself."""

    name = "mailhost"

    def __init__(
        self, host: MailHost, assembly: Assembly, *, reactor: Any, config_path: str | None, umask: int | None
    ) -> None:
        """
        @param config_path: absolute; what SIGHUP reads again.  None: there is only the accounts and certificates to read.
        @param umask: None leaves the one that is.
        """
        self.host = host
        self.config = assembly.config
        self.failure: str | None = None
        self._assembly = assembly
        self._reactor = reactor
        self._observer = assembly.observer
        self._config_path = config_path
        self._umask = umask
        self._notifier = Notifier(os.environ)
        self._hangup = Hangup(reactor, self.reload)
        self._reloading = False
        self._reload_again = False

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._or_exit(self.host.privilegedStartService)

    def startService(self) -> None:
        super().startService()
        if self._umask is not None:
            os.umask(self._umask)
        self._hangup.install()
        self.host.when_ready().addCallbacks(self._ready, self._give_up)
        self._or_exit(self.host.startService)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._notifier.stopping()
        self._notifier.stop_watchdog()
        self._hangup.remove()
        return self.host.stopService()

    def _or_exit(self, start: Callable[[], object]) -> None:
        try:
            start()
        except CannotListen as error:
            raise SystemExit(str(error)) from None

    def _ready(self, _: None) -> None:
        _calm_collector()
        self._notifier.ready()
        self._notifier.start_watchdog(self._reactor)

    def _give_up(self, failure: Failure) -> None:
        self.failure = explain(failure.value)
        # This may be before the reactor runs, when it cannot be stopped yet.
        self._reactor.callLater(0, self._reactor.stop)

    # -- SIGHUP

    def reload(self) -> Deferred[None]:
        """Read configuration, accounts and certificates again: all of it is taken over, or none."""
        if self._reloading:
            self._reload_again = True
            return succeed(None)
        return Deferred.fromCoroutine(self._reload())

    async def _reload(self) -> None:
        self._reloading = True
        # To say ready after a reload would be untrue before the first time.
        await self.host.when_ready()
        self._notifier.reloading()
        try:
            await self._take_over()
        except (ConfigError, CertificateError, CannotListen, Refusal, OSError, ValueError) as error:
            self._observer(Trouble("reload refused; everything stays as it was", error))
        except Exception as error:
            self._observer(Bug("reload", error))
        self._reloading = False
        if not self.running:
            return
        self._notifier.ready()
        if self._reload_again:
            self._reload_again = False
            await self._reload()

    async def _take_over(self) -> None:
        config = self._assembly.config
        if self._config_path is not None:
            pool = self._reactor.getThreadPool()
            config = await deferToThreadPool(self._reactor, pool, configuration.load, self._config_path)
        for unchanged in await self._assembly.reload(self.host, config):
            self._observer(Notice(f"{unchanged} changes at the next start, not now"))
        self._observer(Notice("reloaded"))

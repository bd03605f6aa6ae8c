"""
The configuration: TOML in, one frozen value out, or every mistake in it at once.

Nothing here opens a spool, a port or a certificate; `assemble` does, and `tools.check` tries.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mailhost.limits import Limits, OwnTerms, Quota, Terms
from mailhost.service.structure import (
    NOT_IN_THE_FILE,
    PATTERN,
    Address,
    CheckerText,
    Domain,
    EndpointText,
    HostName,
    Mistakes,
    SpoolText,
    structure,
)
from mailhost.spool.maildir.layout import DEFAULT_PATTERN

ProtocolName = Literal["smtp", "submission", "lmtp", "pop3"]
TLSMode = Literal["none", "starttls", "implicit"]
LogForm = Literal["text", "json"]


class ConfigError(Exception):
    """The configuration cannot be used.  `problems`: one line each, ready to be shown."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """`[tls]`: PEM files, the certificate's followed by its chain."""

    certificate: str
    private_key: str


@dataclass(frozen=True, slots=True)
class Listen:
    """One `[[listen]]`."""

    protocol: ProtocolName
    endpoint: EndpointText
    tls: TLSMode = "none"
    plaintext_login: bool = False
    name: str = ""
    """How log lines call it; protocol and port unless given."""
    limits: Limits = field(default_factory=Limits)
    """The host's, with this listener's own in their place."""


@dataclass(frozen=True, slots=True)
class QuotaTable:
    """`[quota]`: how much a maildrop may hold whose account says nothing of it."""

    default: Quota = field(default_factory=Quota)
    domains: Mapping[str, Quota] = field(default_factory=dict)
    permanent: bool = False
    """A full maildrop is final for its senders."""


@dataclass(frozen=True, slots=True)
class SpaceTable:
    """`[space]`: how a log spool gives back the space of deleted mail, and what it keeps free."""

    keep_deleted_seconds: int = 0
    """For so long deleted mail can be had again."""
    compact_octets_per_second: int = 8 * 1024 * 1024
    """0 is without a bound."""
    floor_octets: int = 64 * 1024 * 1024
    reserve_octets: int = 32 * 1024 * 1024
    segment_octets: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DomainTerms:
    """What differs for one domain from `[pop3]`; None is as it is there."""

    login_delay_seconds: int | None = None
    expire_days: int | None = None

    def own(self) -> OwnTerms:
        own: dict[str, int | None] = {}
        if self.login_delay_seconds is not None:
            own["login_delay_seconds"] = self.login_delay_seconds
        if self.expire_days is not None:
            own["expire_days"] = self.expire_days or None
        return own


@dataclass(frozen=True, slots=True)
class POP3Table:
    """`[pop3]`: on what terms accounts use their maildrops that say nothing of it themselves."""

    login_delay_seconds: int = 0
    expire_days: int = 0
    """0 is never."""
    expire_from: Literal["arrival", "retrieval"] = "arrival"
    domains: Mapping[Domain, DomainTerms] = field(default_factory=dict)
    language: str = "en"
    """What `LANG *` means."""
    apop: bool = False

    @property
    def terms(self) -> Terms:
        return Terms(self.login_delay_seconds, self.expire_days or None)


@dataclass(frozen=True, slots=True)
class Config:
    """All of it.  Relative paths are relative to `directory`; `path` resolves them."""

    hostname: HostName
    domains: tuple[Domain, ...]
    listen: tuple[Listen, ...]
    workers: int = 1
    spool: SpoolText = field(default=SpoolText("log:spool"))
    checkers: tuple[CheckerText, ...] = (CheckerText("passwd:passwd"),)
    aliases: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    catch_all: Mapping[str, Address] = field(default_factory=dict)
    postmaster: Address | None = None
    tls: TLSFiles | None = None
    limits: Limits = field(default_factory=Limits)
    quota: QuotaTable = field(default_factory=QuotaTable)
    pop3: POP3Table = field(default_factory=POP3Table)
    space: SpaceTable = field(default_factory=SpaceTable)
    log: LogForm = "text"
    directory: str = field(default=".", metadata=NOT_IN_THE_FILE)

    def path(self, relative: str) -> str:
        """A path of the file, made absolute."""
        return os.path.abspath(os.path.join(self.directory, relative))

    @property
    def spool_directory(self) -> str | None:
        """Where the spool is; None for one that is nowhere."""
        kind, _, argument = self.spool.partition(":")
        if kind == "maildir":
            argument = argument.partition(PATTERN)[0]
        return None if kind == "memory" else self.path(argument)

    @property
    def maildir_pattern(self) -> str | None:
        """Where a Maildir spool has its Maildirs; None for spools of other kinds."""
        kind, _, argument = self.spool.partition(":")
        return (argument.partition(PATTERN)[2] or DEFAULT_PATTERN) if kind == "maildir" else None


def load(path: str) -> Config:
    """
    Read a configuration file.

    @raise ConfigError: with every mistake that could be found, each beginning with the file's name.
    """
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; `mailhost init DIR` makes a configuration") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return from_document(document, source=path, directory=os.path.dirname(os.path.abspath(path)))


def from_document(document: dict[str, Any], *, source: str, directory: str) -> Config:
    """
    A configuration of what a TOML file would have held.

    @param source: what each problem begins with: a file's name.
    @raise ConfigError: as `load` does.
    """
    try:
        config = structure(document, Config)
    except Mistakes as mistakes:
        raise ConfigError(*(f"{source}: {problem}" for problem in mistakes.problems)) from None
    config = replace(config, directory=directory, listen=_listeners(config, document))
    if problems := [*_contradictions(config)]:
        raise ConfigError(*(f"{source}: {problem}" for problem in problems))
    return config


def located(source: str, error: Exception) -> str:
    """What is wrong with the parts that a configuration names, each line beginning with the file's name."""
    return "\n".join(f"{source}: {line}" for line in str(error).splitlines())


# ------------------------------------------------------------------------------------------- what belongs to the whole


def _listeners(config: Config, document: dict[str, Any]) -> tuple[Listen, ...]:
    """Name each listener, and put its own limits over the host's."""
    names = [listen.name or default_name(listen.protocol, listen.endpoint) for listen in config.listen]
    return tuple(
        replace(
            listen,
            # One port on two interfaces is two listeners.
            name=name if listen.name or names.count(name) == 1 else f"{listen.protocol}:{listen.endpoint}",
            limits=replace(config.limits, **table.get("limits", {})),
        )
        for listen, name, table in zip(config.listen, names, document["listen"])
    )


def default_name(protocol: str, endpoint: str) -> str:
    """`smtp:2525` of `tcp:2525:interface=127.0.0.1`; `pop3:/run/pop3` of `unix:/run/pop3`."""
    arguments = endpoint.split(":")[1:]
    named = [a.partition("=")[2] for a in arguments if a.startswith(("port=", "name=", "address="))]
    return f"{protocol}:{(named or arguments or [endpoint])[0]}"


def _contradictions(config: Config) -> list[str]:
    """What no single value shows."""
    problems = []
    if not config.domains:
        problems.append('domains = []: name at least one, such as domains = ["example.test"]')
    if not config.listen:
        problems.append("no [[listen]]: at least one is needed, with protocol and endpoint")
    taken = [listen.endpoint for listen in config.listen if not _ANY_PORT.match(listen.endpoint)]
    problems += [f'two listeners have endpoint = "{endpoint}"' for endpoint in _doubled(taken)]
    problems += [f'domains: "{domain}" stands there twice' for domain in _doubled([d.lower() for d in config.domains])]
    for number, listen in enumerate(config.listen, 1):
        if listen.tls != "none" and config.tls is None:
            problems.append(
                f'[[listen]] {number}: tls = "{listen.tls}" wants [tls] with certificate and private_key, or tls = "none"'
            )
        if listen.protocol == "lmtp" and _PORT_25.match(listen.endpoint):
            problems.append(f"[[listen]] {number}: port 25 is SMTP's, and LMTP must not be there (RFC 2033 5)")
    if config.workers != 1:
        problems.append(
            f"workers = {config.workers}: this version runs one process; "
            "for more, run `twistd mailhost-smtp` and `twistd mailhost-pop3` over the same spool"
        )
    return problems


# Another port each time.
_ANY_PORT = re.compile(r"tcp6?:(port=)?0(:|$)")
_PORT_25 = re.compile(r"tcp6?:(port=)?25(:|$)")


def _doubled(values: list[Any]) -> list[Any]:
    return sorted({value for value in values if values.count(value) > 1})

"""
The configuration: TOML in, one frozen value out, or every mistake in it at once.

Nothing here opens a spool, a port or a certificate; `assemble` does, and `tools.check` tries.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, NewType, get_args, get_origin

from cattrs import Converter, transform_error
from cattrs.cols import homogenous_tuple_structure_factory, mapping_structure_factory
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override
from twisted.internet import endpoints

from mailhost.limits import Limits

HostName = NewType("HostName", str)
"""A fully qualified or single-label name: letters, digits, hyphens, dots; beyond ASCII as IDNA allows."""
Domain = NewType("Domain", str)
"""A host name, or an address literal such as `[192.0.2.1]`."""
Address = NewType("Address", str)
"""`user@domain`; `user` alone belongs to the first domain."""
EndpointText = NewType("EndpointText", str)
"""A Twisted server endpoint string."""
SpoolText = NewType("SpoolText", str)
"""`kind:argument`."""
CheckerText = NewType("CheckerText", str)
"""A strcred string: `type` or `type:argument`."""

ProtocolName = Literal["smtp", "submission", "pop3"]
TLSMode = Literal["none", "starttls", "implicit"]
LogForm = Literal["text", "json"]

SPOOL_KINDS = ("log", "memory")


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
class Config:
    """All of it.  Relative paths are relative to `directory`; `path` resolves them."""

    hostname: HostName
    domains: tuple[Domain, ...]
    listen: tuple[Listen, ...]
    workers: int = 1
    spool: SpoolText = SpoolText("log:spool")
    checkers: tuple[CheckerText, ...] = (CheckerText("passwd:passwd"),)
    aliases: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    catch_all: Mapping[str, Address] = field(default_factory=dict)
    postmaster: Address | None = None
    tls: TLSFiles | None = None
    limits: Limits = field(default_factory=Limits)
    log: LogForm = "text"
    directory: str = "."

    def path(self, relative: str) -> str:
        """A path of the file, made absolute."""
        return os.path.abspath(os.path.join(self.directory, relative))

    @property
    def spool_kind(self) -> str:
        return self.spool.partition(":")[0]

    @property
    def spool_directory(self) -> str | None:
        """Where the spool is; None for one that is nowhere."""
        kind, _, argument = self.spool.partition(":")
        return None if kind == "memory" else self.path(argument)


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
        config: Config = _converter().structure(document, Config)
    except Exception as error:
        problems = transform_error(error, path="", format_exception=_say)
        raise ConfigError(*(f"{source}: {_located(problem)}" for problem in problems)) from None
    config = replace(config, directory=directory, listen=_listeners(config, document))
    if problems := [*_contradictions(config)]:
        raise ConfigError(*(f"{source}: {problem}" for problem in problems))
    return config


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
    if config.workers != 1:
        problems.append(
            f"workers = {config.workers}: this version runs one process; "
            "for more, run `twistd mailhost-smtp` and `twistd mailhost-pop3` over the same spool"
        )
    return problems


# Another port each time.
_ANY_PORT = re.compile(r"tcp6?:(port=)?0(:|$)")


def _doubled(values: list[Any]) -> list[Any]:
    return sorted({value for value in values if values.count(value) > 1})


# ---------------------------------------------------------------------------------------------------- one value's check


class Wrong(ValueError):
    """A value that cannot be used; the text names it and what would be right."""


def _show(value: object) -> str:
    """A value as TOML would have it, nearly."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _exactly(kind: type, description: str) -> Callable[[Any, Any], Any]:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise Wrong(f"{_show(value)} is not {description}")
        return value

    return check


def _count(value: Any, _: Any) -> int:
    if type(value) is not int or value < 0:
        raise Wrong(f"{_show(value)} is not a whole number of 0 or more")
    return value


def _seconds(value: Any, _: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise Wrong(f"{_show(value)} is not a number of seconds above 0")
    return float(value)


_HOST_NAME = re.compile(r"(?!-)[\w-]{1,63}(?<!-)(\.(?!-)[\w-]{1,63}(?<!-))*")


def _host_name(value: Any, _: Any) -> str:
    if not isinstance(value, str) or not _HOST_NAME.fullmatch(value) or len(value) > 253:
        raise Wrong(f'{_show(value)} is not a host name such as "mx.example.test"')
    return value


def _domain(value: Any, _: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"\[[\w.:]+\]", value):
        return value
    return _host_name(value, _)


def _address(value: Any, _: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[^@\s]+(@[^@\s]+)?", value):
        raise Wrong(f'{_show(value)} is not an address such as "ann@example.test"')
    return value


def _endpoint(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise Wrong(f'{_show(value)} is not an endpoint such as "tcp:2525:interface=127.0.0.1"')
    # What a systemd: endpoint means is known only to a process that systemd started.
    if not value.startswith("systemd:"):
        try:
            endpoint = endpoints.serverFromString(None, value)
        except Exception as error:
            raise Wrong(
                f'{_show(value)} is not an endpoint such as "tcp:2525:interface=127.0.0.1": {_reason(error)}'
            ) from None
        if not 0 <= getattr(endpoint, "_port", 0) <= 65535:
            raise Wrong(f"{_show(value)}: a port is 0 to 65535")
    return value


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _spool(value: Any, _: Any) -> str:
    kind, _colon, argument = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind not in SPOOL_KINDS or (kind != "memory" and not argument):
        raise Wrong(f'{_show(value)} is not a spool such as "log:spool"; kinds are {", ".join(SPOOL_KINDS)}')
    return str(value)


def _checker(value: Any, _: Any) -> str:
    if not isinstance(value, str) or not re.match(r"\w+(:|$)", value):
        raise Wrong(f'{_show(value)} is not a checker such as "passwd:passwd"')
    return value


def _choice(kind: Any) -> Callable[[Any, Any], Any]:
    def check(value: Any, _: Any) -> Any:
        if value not in get_args(kind):
            raise Wrong(f"{_show(value)} is none of {', '.join(get_args(kind))}")
        return value

    return check


# -------------------------------------------------------------------------------------------------------- the converter


def _converter() -> Converter:
    """A converter that coerces nothing: what has the wrong type in the file is a mistake."""
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind, check in (
        (str, _exactly(str, "text in quotes")),
        (bool, _exactly(bool, "true or false")),
        (int, _count),
        (float, _seconds),
        (HostName, _host_name),
        (Domain, _domain),
        (Address, _address),
        (EndpointText, _endpoint),
        (SpoolText, _spool),
        (CheckerText, _checker),
    ):
        converter.register_structure_hook(kind, check)
    converter.register_structure_hook_factory(lambda kind: _generic(kind, Literal), _choice)
    converter.register_structure_hook_factory(is_dataclass, lambda kind: _table_hook(kind, converter))
    converter.register_structure_hook_factory(
        lambda kind: _generic(kind, tuple),
        lambda kind: _only(list, "a list", homogenous_tuple_structure_factory(kind, converter)),
    )
    converter.register_structure_hook_factory(
        lambda kind: _generic(kind, Mapping),
        lambda kind: _only(dict, "a table", mapping_structure_factory(kind, converter, dict)),
    )
    return converter


def _generic(kind: Any, origin: Any) -> bool:
    found: Any = get_origin(kind)
    return found is origin


def _table_hook(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    omitted: dict[str, Any] = {"directory": override(omit=True)} if kind is Config else {}
    structure = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, **omitted)
    return _only(dict, "a table", structure)


def _only(kind: type, description: str, inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def check(value: Any, wanted: Any) -> Any:
        if not isinstance(value, kind):
            raise Wrong(f"{_show(value)} is not {description}")
        return inner(value, wanted)

    return check


# ------------------------------------------------------------------------------------------------------- how it is said


def _say(error: BaseException, kind: type | None) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        return "; ".join(_unknown(key, error.cl) for key in sorted(error.extra_fields))
    if isinstance(error, KeyError):
        return "missing"
    return str(error)


def _unknown(key: str, kind: type) -> str:
    known = [f.name for f in fields(kind) if f.name != "directory"]
    near = difflib.get_close_matches(key, known, 1)
    return f'unknown key "{key}"; ' + (f'"{near[0]}" perhaps?' if near else f"known are {', '.join(sorted(known))}")


def _located(problem: str) -> str:
    """`message @ .listen[0].tls` of cattrs, as `[[listen]] 1, tls: message`."""
    message, _, path = problem.rpartition(" @ ")
    path = re.sub(r"\[(\d+)\]", lambda number: f" {int(number[1]) + 1}", path.removeprefix("."))
    path = re.sub(r"\['(.*?)'\]", r".\1", path)
    path = re.sub(r"^listen (\d+)\.?", r"[[listen]] \1, ", path).removesuffix(", ")
    return f"{path}: {message}" if path else message

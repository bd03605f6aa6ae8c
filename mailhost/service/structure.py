"""
From what TOML gives to typed values, strictly: nothing is coerced, every mistake is found, and each says what would be right.

cattrs walks the types; the checks here are its hooks, one for each type that the configuration has.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any, Literal, NewType, TypeVar, get_args, get_origin

from cattrs import Converter, transform_error
from cattrs.cols import homogenous_tuple_structure_factory, mapping_structure_factory
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override
from twisted.internet import endpoints

from mailhost.limits import Quota
from mailhost.spool.maildir.layout import BadPattern, check_pattern

HostName = NewType("HostName", str)
"""Of the host itself, which stands in greetings: ASCII."""
Domain = NewType("Domain", str)
"""A domain, beyond ASCII too, or an address literal such as `[192.0.2.1]`."""
Address = NewType("Address", str)
"""`user@domain`; `user` alone belongs to the first domain."""
EndpointText = NewType("EndpointText", str)
"""A Twisted server endpoint string."""
SpoolText = NewType("SpoolText", str)
"""`kind:argument`."""
CheckerText = NewType("CheckerText", str)
"""A strcred string: `type` or `type:argument`."""

SPOOL_KINDS = ("log", "maildir", "memory")
PATTERN = ":pattern="
"""Divides the directory of a Maildir spool from where its Maildirs are in it."""

NOT_IN_THE_FILE = {"in the file": False}
"""Metadata of a dataclass's field that no key of the file sets."""

_Kind = TypeVar("_Kind")


class Mistakes(Exception):
    """`problems`: one line each, with the key's place, the value and what would be right."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def structure(document: dict[str, Any], kind: type[_Kind]) -> _Kind:
    """
    A dataclass of nested tables and lists.

    @raise Mistakes: all of them.
    """
    try:
        value: _Kind = _converter().structure(document, kind)
    except Exception as error:
        raise Mistakes(
            [_located(problem) for problem in transform_error(error, path="", format_exception=_say)]
        ) from None
    return value


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


_LABELS = re.compile(r"(?!-)[\w-]{1,63}(?<!-)(\.(?!-)[\w-]{1,63}(?<!-))*")


def _host_name(value: Any, _: Any) -> str:
    if not isinstance(value, str) or not value.isascii() or not _LABELS.fullmatch(value) or len(value) > 253:
        raise Wrong(f'{_show(value)} is not a host name such as "mx.example.test", in ASCII')
    return value


def _domain(value: Any, _: Any) -> str:
    if not isinstance(value, str) or not (_LABELS.fullmatch(value) or re.fullmatch(r"\[[\w.:]+\]", value)):
        raise Wrong(f'{_show(value)} is not a domain such as "example.test"')
    return value


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
    directory, given, pattern = argument.partition(PATTERN) if kind == "maildir" else (argument, "", "")
    if kind not in SPOOL_KINDS or (kind != "memory" and not directory):
        raise Wrong(f'{_show(value)} is not a spool such as "log:spool"; kinds are {", ".join(SPOOL_KINDS)}')
    if given:
        try:
            check_pattern(pattern)
        except BadPattern as error:
            raise Wrong(str(error)) from None
    return str(value)


def _checker(value: Any, _: Any) -> str:
    if not isinstance(value, str) or not re.match(r"\w+(:|$)", value):
        raise Wrong(f'{_show(value)} is not a checker such as "passwd:passwd"')
    return value


def _quota(value: Any, _: Any) -> Quota:
    try:
        return Quota.parse(value)
    except (TypeError, ValueError):
        raise Wrong(f'{_show(value)} is not a quota such as "5G", "10000/5G" or "-"') from None


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
        (Quota, _quota),
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
    omitted: dict[str, Any] = {one.name: override(omit=True) for one in fields(kind) if not _in_file(one)}
    structure = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, **omitted)
    return _only(dict, "a table", structure)


def _in_file(one: Field[Any]) -> bool:
    return bool(one.metadata.get("in the file", True))


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
    known = [one.name for one in fields(kind) if _in_file(one)]
    near = difflib.get_close_matches(key, known, 1)
    return f'unknown key "{key}"; ' + (f'"{near[0]}" perhaps?' if near else f"known are {', '.join(sorted(known))}")


def _located(problem: str) -> str:
    """`message @ .listen[0].tls` of cattrs, as `[[listen]] 1, tls: message`."""
    message, _, path = problem.rpartition(" @ ")
    path = re.sub(r"\[(\d+)\]", lambda number: f" {int(number[1]) + 1}", path.removeprefix("."))
    path = re.sub(r"\['(.*?)'\]", r".\1", path)
    path = re.sub(r"^listen (\d+)\.?", r"[[listen]] \1, ", path).removesuffix(", ")
    return f"{path}: {message}" if path else message

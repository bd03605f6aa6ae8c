"""
Events to log lines: one for each message and each session, by which an operator follows a message from its session to RETR and DELE.

    2026-11-21T22:10:03.120Z accepted session=x7 id=00.. from=<ann@a.example> to=<bob@b.example> octets=2048 seconds=0.004 host=192.0.2.1

A value that holds anything but letters, digits and harmless signs is written as JSON writes it, so nothing a client sends can begin a
line or a field.  No event holds a password.

`LineWriter` is for `mailhost run`: it costs a few microseconds a line where Twisted's text log costs a hundred.  `to_twisted` is for
twistd and for applications that have a log of their own.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import ILogObserver, Logger, formatEvent
from twisted.python import threadable
from twisted.python.failure import Failure
from zope.interface import implementer

from mailhost.envelope import Client, Path
from mailhost.events import (
    Bug,
    ConnectionRefused,
    Event,
    LoggedIn,
    LoginRefused,
    MessageAccepted,
    MessageRefused,
    MessageRetrieved,
    MessagesDeleted,
    Notice,
    Observer,
    SessionEnded,
    Trouble,
)
from mailhost.refusal import SpoolUnavailable
from mailhost.service.certificates import CertificateError
from mailhost.service.config import ConfigError
from mailhost.service.listen import CannotListen

Fields = dict[str, Any]
"""Field names to text, numbers or lists of text, in the order of the line."""

# A queue of lines is written at the end of the turn, or sooner when it has grown to this.
_BATCH_LINES = 512
# How long a line may wait for others.  Whoever follows a log does not see it.
_WAIT_SECONDS = 0.05


# ------------------------------------------------------------------------------------------------------ what a line says


def _client(client: Client) -> Fields:
    fields: Fields = {"listener": client.listener, "host": client.host}
    if client.account is not None:
        fields["account"] = _text(client.account)
    return fields


def _accepted(event: MessageAccepted) -> Fields:
    return {
        "session": event.client.session,
        "id": event.unique_id,
        "from": _path(event.reverse_path),
        "to": _paths(event.forward_paths),
        "octets": event.octets,
        "seconds": event.seconds,
        **_client(event.client),
    }


def _refused(event: MessageRefused) -> Fields:
    return {
        "session": event.client.session,
        "stage": event.stage,
        "from": event.reverse_path and str(event.reverse_path),
        "to": event.forward_path and str(event.forward_path),
        "reply": event.reply,
        "cause": _cause(event.cause),
        **_client(event.client),
    }


def _retrieved(event: MessageRetrieved) -> Fields:
    return {
        "session": event.client.session,
        "id": event.unique_id,
        "octets": event.octets,
        **_client(event.client),
    }


def _deleted(event: MessagesDeleted) -> Fields:
    return {
        "session": event.client.session,
        "ids": list(event.unique_ids),
        **_client(event.client),
    }


def _logged_in(event: LoggedIn) -> Fields:
    return {"session": event.client.session, "tls": _tls(event.client), **_client(event.client)}


def _login_refused(event: LoginRefused) -> Fields:
    return {
        "session": event.client.session,
        "why": event.why,
        "cause": _cause(event.cause),
        **_client(event.client),
        "account": _text(event.account),
    }


def _ended(event: SessionEnded) -> Fields:
    return {
        "session": event.client.session,
        "why": event.why,
        "messages": event.messages,
        "in": event.octets_in,
        "out": event.octets_out,
        "seconds": event.seconds,
        "tls": _tls(event.client),
        "helo": event.client.helo or None,
        **_client(event.client),
    }


def _turned_away(event: ConnectionRefused) -> Fields:
    return {"why": event.why, "listener": event.listener, "host": event.host}


def _trouble(event: Trouble) -> Fields:
    return {"what": event.what, "cause": _cause(event.cause)}


def _notice(event: Notice) -> Fields:
    return {"what": event.what}


def _bug(event: Bug) -> Fields:
    return {
        "where": event.where,
        "session": event.client and event.client.session,
        "cause": _cause(event.failure),
        "traceback": Failure(event.failure).getTraceback(),
    }


_LINES: Mapping[type, tuple[str, Callable[[Any], Fields]]] = {
    MessageAccepted: ("accepted", _accepted),
    MessageRefused: ("refused", _refused),
    MessageRetrieved: ("retrieved", _retrieved),
    MessagesDeleted: ("deleted", _deleted),
    LoggedIn: ("login", _logged_in),
    LoginRefused: ("login-refused", _login_refused),
    SessionEnded: ("ended", _ended),
    ConnectionRefused: ("turned-away", _turned_away),
    Trouble: ("trouble", _trouble),
    Notice: ("notice", _notice),
    Bug: ("bug", _bug),
}


def describe(event: Event) -> tuple[str, Fields]:
    """An event's name in the log and its fields; those that are None say nothing and are left out of lines."""
    name, fields_of = _LINES[type(event)]
    return name, fields_of(event)


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")


def _path(path: Path) -> str:
    local_part, domain = path
    # Most need no quotes, and to find that out costs more than the rest of the field.
    return f"<{local_part}@{domain}>" if local_part.isalnum() and domain else str(path)


def _paths(paths: tuple[Path, ...]) -> str | list[str]:
    return _path(paths[0]) if len(paths) == 1 else [_path(path) for path in paths]


def _tls(client: Client) -> str | None:
    return client.tls and client.tls.version


def _cause(cause: object) -> str | None:
    return None if cause is None else explain(cause)


def explain(cause: object) -> str:
    """What went wrong, for an operator: an exception's kind, its text, and the cause that a Refusal carries."""
    if not isinstance(cause, BaseException):
        return str(cause)
    deeper = getattr(cause, "cause", None)
    if isinstance(cause, SpoolUnavailable) and isinstance(deeper, str):
        return deeper  # a sentence of the spool's, for an operator
    text = str(cause) if isinstance(cause, _IN_WORDS) else ": ".join(filter(None, (type(cause).__name__, str(cause))))
    return text if deeper is None else f"{text} ({explain(deeper)})"


# Errors whose text alone says all.
_IN_WORDS = (ConfigError, CertificateError, CannotListen)


# --------------------------------------------------------------------------------------------------------- how it is said

_HARMLESS = re.compile(r"[\w.:@<>/+,;!#$%&*?^`{|}~'()\[\]-]+", re.ASCII).fullmatch


def as_text(moment: str, name: str, fields: Fields) -> str:
    """One line of `key=value`."""
    line = f"{moment} {name}"
    # Mostly all of them are harmless, which one look at all tells sooner than one at each.
    harmless = _HARMLESS("".join([value for value in fields.values() if type(value) is str]))
    for key, value in fields.items():
        kind = type(value)
        if kind is int or (kind is str and harmless and value):
            line += f" {key}={value}"
        elif kind is float:
            line += f" {key}={value:.4f}"
        elif value is not None:
            line += f" {key}={_quoted(value)}"
    return line


def _quoted(value: str | list[str]) -> str:
    """A value as it is, or as JSON where it could be taken for something else."""
    text = value if type(value) is str else ",".join(value)
    return text if _HARMLESS(text) else json.dumps(value)


def as_json(moment: str, name: str, fields: Fields) -> str:
    """One line of JSON."""
    said = {key: value for key, value in fields.items() if value is not None}
    return json.dumps({"time": moment, "event": name, **said})


class LineWriter:
    """
    Writes lines to a file descriptor, those of a short while at once: a timer and a system call for each would cost more than a line.

    A descriptor that cannot take them (a closed pipe, a full disk) loses them: mail goes on without a log.
    """

    def __init__(self, reactor: Any, descriptor: int, form: Callable[[str, str, Fields], str] = as_text) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._form = form
        self._lines: list[str] = []
        self._second = -1
        self._prefix = ""

    def __call__(self, event: Event) -> None:
        """An `Observer`."""
        self.write(*describe(event))

    def write(self, name: str, fields: Fields) -> None:
        """One line, soon."""
        self._lines.append(self._form(self._moment(), name, fields))
        if len(self._lines) == 1:
            self._reactor.callLater(_WAIT_SECONDS, self.flush)
        elif len(self._lines) >= _BATCH_LINES:
            self.flush()

    def write_from_thread(self, name: str, fields: Fields) -> None:
        """The same, from a thread that is not the reactor's."""
        self._reactor.callFromThread(self.write, name, fields)

    def flush(self) -> None:
        """Write what waits."""
        if not self._lines:
            return
        octets = ("\n".join(self._lines) + "\n").encode("utf-8", "backslashreplace")
        self._lines.clear()
        try:
            while octets:
                octets = octets[os.write(self._descriptor, octets) :]
        except OSError:
            pass

    def _moment(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{int((now - second) * 1000):03}Z"


@implementer(ILogObserver)
class TwistedLines:
    """What Twisted itself logs, as lines among ours: failures always, the rest from warnings up."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def __call__(self, event: Mapping[str, Any]) -> None:
        level = event.get("log_level")
        failure = event.get("log_failure")
        if failure is None and (level is None or level.name in ("debug", "info")):
            return
        fields = {
            "level": level.name if level is not None else "error",
            "system": event.get("log_namespace"),
            "what": formatEvent(dict(event)),
            "traceback": failure and failure.getTraceback(),
        }
        # Anybody may log, in any thread; before the reactor runs there is only one.
        if threadable.ioThread is None or threadable.isInIOThread():
            self._writer.write("twisted", fields)
        else:
            self._writer.write_from_thread("twisted", fields)


_LOUD = {"trouble": "warn", "bug": "critical"}


def to_twisted(log: Logger | None = None) -> Observer:
    """An observer that hands every event to `twisted.logger`, its fields beside its line."""
    logger = log or Logger(namespace="mailhost")

    def observe(event: Event) -> None:
        name, fields = describe(event)
        emit = getattr(logger, _LOUD.get(name, "info"))
        emit("{line}", line=as_text("", name, fields).lstrip(), event=name, fields=fields)

    return observe

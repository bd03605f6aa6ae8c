"""Log lines: what they say, what they never say, and that nothing a client sends can forge one."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailhost import events
from mailhost.envelope import TLS, Client, Path
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
    SessionEnded,
    Trouble,
)
from mailhost.refusal import SpoolFull
from mailhost.service import observers
from mailhost.service.observers import LineWriter, TwistedLines, as_json, as_text, describe, explain, to_twisted

CLIENT = Client("x7", "192.0.2.1", 4321, "smtp:25", "smtp", helo="client.example")
USER = CLIENT._replace(account=b"ann@example.test", tls=TLS("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256))
ANN = Path("ann", "example.test")

LINES: list[tuple[Event, str]] = [
    (
        MessageAccepted(CLIENT, "00a1", Path("bob", "far.example"), (ANN,), 2048, 0.00421),
        "accepted session=x7 id=00a1 from=<bob@far.example> to=<ann@example.test> octets=2048 seconds=0.0042 "
        "listener=smtp:25 host=192.0.2.1",
    ),
    (
        MessageAccepted(USER, "00a2", Path("", ""), (ANN, Path("eve", "example.test")), 1, 0.0),
        "accepted session=x7 id=00a2 from=<> to=<ann@example.test>,<eve@example.test> octets=1 seconds=0.0000 "
        "listener=smtp:25 host=192.0.2.1 account=ann@example.test",
    ),
    (
        MessageRefused(CLIENT, "RCPT", ANN, Path("x y", "example.test"), "550 5.1.1 Nobody", SpoolFull("no room")),
        'refused session=x7 stage=RCPT from=<ann@example.test> to="<\\"x y\\"@example.test>" reply="550 5.1.1 Nobody" '
        'cause="SpoolFull: no room" listener=smtp:25 host=192.0.2.1',
    ),
    (
        MessageRefused(CLIENT, "MAIL", None, None, "501"),
        "refused session=x7 stage=MAIL reply=501 listener=smtp:25 host=192.0.2.1",
    ),
    (
        MessageRetrieved(USER, "00a1", 2100),
        "retrieved session=x7 id=00a1 octets=2100 listener=smtp:25 host=192.0.2.1 account=ann@example.test",
    ),
    (
        MessagesDeleted(USER, ("00a1", "00a2")),
        "deleted session=x7 ids=00a1,00a2 listener=smtp:25 host=192.0.2.1 account=ann@example.test",
    ),
    (
        LoggedIn(USER),
        "login session=x7 tls=TLSv1.3 listener=smtp:25 host=192.0.2.1 account=ann@example.test",
    ),
    (
        LoginRefused(CLIENT, b"\xff\n", "wrong password"),
        'login-refused session=x7 why="wrong password" listener=smtp:25 host=192.0.2.1 account="\\\\xff\\n"',
    ),
    (
        SessionEnded(CLIENT, 1.5, "quit", 3, 10, 20),
        "ended session=x7 why=quit messages=3 in=10 out=20 seconds=1.5000 helo=client.example listener=smtp:25 host=192.0.2.1",
    ),
    (ConnectionRefused("::1", "pop3", "too many"), 'turned-away why="too many" listener=pop3 host=::1'),
    (
        Trouble("sync failed", OSError(5, "I/O error")),
        'trouble what="sync failed" cause="OSError: [Errno 5] I/O error"',
    ),
    (Notice("ready"), "notice what=ready"),
]


@pytest.mark.parametrize(("event", "line"), LINES, ids=lambda value: type(value).__name__)
def test_a_line_for_each_event(event: Event, line: str) -> None:
    """What an operator greps for."""
    assert as_text("T", *describe(event)) == f"T {line}"


def test_every_event_has_a_line() -> None:
    """A new kind of event is not forgotten."""
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and hasattr(kind, "_fields")}
    kinds -= {Client, Path}
    assert set(observers._LINES) == kinds


@pytest.mark.parametrize(("event", "line"), LINES, ids=lambda value: type(value).__name__)
def test_json(event: Event, line: str) -> None:
    """The same fields as one object a line."""
    said = json.loads(as_json("T", *describe(event)))
    name, fields = describe(event)
    assert said.pop("time") == "T"
    assert said.pop("event") == name
    assert said == {key: value for key, value in fields.items() if value is not None}


def test_a_bug_keeps_its_traceback_on_one_line() -> None:
    """Whoever has to mend it needs the traceback; whoever reads lines needs lines."""
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError as error:
        line = as_text("T", *describe(Bug("RCPT", error, CLIENT)))
    assert line.startswith('T bug where=RCPT session=x7 cause="ZeroDivisionError: oh" traceback="')
    assert "test_observers.py" in line
    assert "\n" not in line


@given(st.text(max_size=40))
@settings(max_examples=200)
def test_no_client_can_forge_a_field_or_a_line(text: str) -> None:
    """Whatever a HELO name or an address holds, one line stays one line, and its fields stay what they are."""
    event = SessionEnded(CLIENT._replace(helo=text or "x"), 1.0, "quit", 0, 0, 0)
    line = as_text("T", *describe(event))
    assert len(line.splitlines()) == 1
    without_quoted = re.sub(r'"([^"\\]|\\.)*"', "Q", line)
    keys = [part.partition("=")[0] for part in without_quoted.split(" ")[2:]]
    assert keys == ["session", "why", "messages", "in", "out", "seconds", "helo", "listener", "host"]


def test_causes_are_told_to_the_end() -> None:
    """A refusal's cause, and the cause behind that, are for the operator."""
    assert explain(SpoolFull("no room", cause=OSError("disk"))) == "SpoolFull: no room (OSError: disk)"
    assert explain("a text") == "a text"


def test_lines_of_a_short_while_are_written_at_once() -> None:
    """Nothing is written for each line alone; all of them soon, each with its time."""
    read, write = os.pipe()
    clock = Clock()
    writer = LineWriter(clock, write)
    os.set_blocking(read, False)
    writer(Notice("one"))
    writer(Notice("two"))
    with pytest.raises(BlockingIOError):
        os.read(read, 1000)
    clock.advance(1)
    lines = os.read(read, 1000).decode().splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["notice what=one", "notice what=two"]
    moment = lines[0].partition(" ")[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert moment[:16] in {time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() - ago)) for ago in (0, 1)}
    writer(Notice("three"))
    clock.advance(1)
    assert b"three" in os.read(read, 1000)
    os.close(read)
    os.close(write)


def test_many_lines_do_not_wait() -> None:
    """Memory for lines is bounded."""
    read, write = os.pipe()
    writer = LineWriter(Clock(), write)
    for _ in range(512):
        writer(Notice("x"))
    assert os.read(read, 1 << 16).count(b"\n") == 512
    os.close(read)
    os.close(write)


def test_a_log_that_nobody_takes_stops_no_mail() -> None:
    """A closed pipe is no reason to fail."""
    read, write = os.pipe()
    os.close(read)
    clock = Clock()
    writer = LineWriter(clock, write)
    writer(Notice("x"))
    clock.advance(1)
    os.close(write)


def test_what_twisted_logs_stands_among_ours() -> None:
    """Failures and warnings do; chatter does not."""
    read, write = os.pipe()
    clock = Clock()
    log = Logger(namespace="some.module", observer=TwistedLines(LineWriter(clock, write)))
    log.info("Starting factory {f}", f=1)
    log.warn("odd {thing}", thing="a b")
    log.failure("broken", Failure(ValueError("x")))
    clock.advance(1)
    odd, broken = os.read(read, 65536).decode().splitlines()
    assert odd.endswith('twisted level=warn system=some.module what="odd a b"')
    assert "level=critical" in broken
    assert "ValueError" in broken
    os.close(read)
    os.close(write)


def test_what_is_logged_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reactor's timers are its own thread's: the line goes there first."""
    monkeypatch.setattr("twisted.python.threadable.ioThread", threading.get_ident())
    handed_over: list[Any] = []

    class Reactor(Clock):
        def callFromThread(self, function: Any, *arguments: Any) -> None:
            handed_over.append((function, arguments))

    read, write = os.pipe()
    reactor = Reactor()
    log = Logger(namespace="some.module", observer=TwistedLines(LineWriter(reactor, write)))
    elsewhere = threading.Thread(target=lambda: log.warn("odd"))
    elsewhere.start()
    elsewhere.join()
    assert not reactor.getDelayedCalls()
    ((function, arguments),) = handed_over
    function(*arguments)
    reactor.advance(1)
    assert os.read(read, 1000).endswith(b"twisted level=warn system=some.module what=odd\n")
    os.close(read)
    os.close(write)


def test_events_in_an_applications_own_log() -> None:
    """Through twisted.logger each event is one line with its fields beside it, troubles louder."""
    seen: list[dict[str, Any]] = []
    observe = to_twisted(Logger(namespace="mailhost", observer=seen.append))  # type: ignore[arg-type]
    observe(Notice("ready"))
    observe(Trouble("sync failed"))
    assert [event["log_level"].name for event in seen] == ["info", "warn"]
    assert seen[0]["log_format"].format(**seen[0]) == "notice what=ready"
    assert seen[1]["fields"]["what"] == "sync failed"

"""Terms as somebody's factory for Twisted's POP3 says them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.mail.interfaces import IServerFactoryPOP3
from zope.interface import implementer

from mailhost.events import Bug
from mailhost.foreign.settings import offered_from_twisted
from mailhost.limits import Offered, Terms


def unsupported() -> Any:
    raise NotImplementedError


@implementer(IServerFactoryPOP3)
class Settings:
    """Answers as the test says."""

    challengers: dict[bytes, Any] = {}  # noqa: RUF012

    def __init__(self, delay: Callable[[], Any], days: Callable[[], Any], varies: bool = False) -> None:
        self.cap_LOGIN_DELAY = delay
        self.cap_EXPIRE = days
        self.perUserLoginDelay = self.perUserExpiration = lambda: varies
        self.cap_IMPLEMENTATION = lambda: "theirs"


@pytest.mark.parametrize(
    ("settings", "offered"),
    [
        (Settings(lambda: 60, lambda: 30), Offered(Terms(60, 30))),
        (Settings(lambda: 60, lambda: None, varies=True), Offered(Terms(60, None), True, True)),
        (Settings(lambda: b"60", lambda: "30"), Offered(Terms(60, 30))),
        (Settings(unsupported, unsupported, varies=True), Offered()),
    ],
)
def test_terms(settings: Any, offered: Offered) -> None:
    """Numbers, octets and text alike; what is not supported is not offered, and None days is for ever."""
    assert offered_from_twisted(settings)() == offered


@pytest.mark.parametrize("answer", [lambda: "soon", lambda: -1, lambda: object(), lambda: 1 / 0])
def test_nonsense(answer: Callable[[], Any]) -> None:
    """It is reported and not offered; the rest stands."""
    events: list[Any] = []
    offered = offered_from_twisted(Settings(answer, lambda: 7), events.append)  # type: ignore[arg-type]
    assert offered() == Offered(Terms(0, 7))
    (event,) = events
    assert isinstance(event, Bug)
    assert event.where == "cap_LOGIN_DELAY"

"""What somebody's IServerFactoryPOP3 says of its terms, as our POP3 factory says it before a login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.mail.interfaces import IServerFactoryPOP3

from mailhost.events import Bug, Observer, unobserved
from mailhost.limits import Offered, Terms


def offered_from_twisted(settings: IServerFactoryPOP3, observer: Observer = unobserved) -> Callable[[], Offered]:
    """
    For `POP3Factory(offered=...)`: EXPIRE and LOGIN-DELAY (RFC 2449 6.5, 6.7), asked for at each CAPA.

    What raises NotImplementedError is not offered; any other exception is reported, and the same then.  IMPLEMENTATION stays ours,
    since it is our program that answers.
    """

    def offered() -> Offered:
        delay, delay_varies = _term(settings, "cap_LOGIN_DELAY", "perUserLoginDelay", observer)
        days, days_vary = _term(settings, "cap_EXPIRE", "perUserExpiration", observer)
        return Offered(Terms(delay or 0, days or None), delay_varies, days_vary)

    return offered


def _term(settings: Any, value: str, varies: str, observer: Observer) -> tuple[int | None, bool]:
    try:
        answer = getattr(settings, value)()
        number = None if answer is None else int(answer)
        if number is not None and number < 0:
            raise ValueError(f"{value} answered with {answer!r}")
        return number, bool(getattr(settings, varies)())
    except NotImplementedError:
        pass
    except Exception as error:
        observer(Bug(value, error))
    return None, False

"""What may be told of an error that has seen a password."""

from __future__ import annotations

from typing import Any


def octets(text: bytes | str) -> bytes:
    """Names and passwords are octets here; foreign code also has them as text."""
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def discreet(error: BaseException, credentials: Any) -> BaseException | str:
    """
    A cause for the log: the error, or only its class where its words hold the password.

    A checker that nobody here wrote may well say `no match for 'hunter2'`.
    """
    password = getattr(credentials, "password", None)
    if not password:
        return error
    seen: BaseException | None = error
    while seen is not None:
        if _holds(f"{seen} {seen!r}", octets(password)):
            return type(error).__qualname__
        seen = seen.__cause__ or seen.__context__
    return error


def _holds(words: str, password: bytes) -> bool:
    """Whether the password stands there as text, or as Python writes octets."""
    return password.decode("utf-8", "replace") in words or repr(password)[2:-1] in words

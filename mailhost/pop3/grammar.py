"""
What a POP3 command line says (RFC 1939 3, RFC 2449 3): from the octets behind a keyword to values.

One space stands between keyword and arguments.  More of them, and spaces at the end, are forgiven where no argument can hold a
space; in USER and PASS every octet behind the first space is the argument's own.
"""

from __future__ import annotations

import re

from mailhost.refusal import LoginFailed, Refusal

# RFC 4616 2: a name has at most 255 octets; no address is longer (RFC 5321 4.5.3.1).
_USERNAME_OCTETS = 255
# Python refuses to read numbers of thousands of digits, and nobody has so many messages or lines.
_DIGITS = 18
_BEYOND_ALL = 10**_DIGITS
_DIGEST = re.compile(rb"[0-9A-Fa-f]{32}")


class BadSyntax(Refusal):
    """A command line that its command does not allow."""


def nothing(argument: bytes) -> None:
    if argument.strip(b" "):
        raise BadSyntax("no argument is allowed here")


def message_number(argument: bytes) -> int:
    """RETR and DELE.  The number need not be any message's."""
    arguments = _words(argument)
    if len(arguments) != 1:
        raise BadSyntax("one message-number is wanted")
    return _number(arguments[0])


def optional_message_number(argument: bytes) -> int | None:
    """LIST and UIDL: None asks for all messages."""
    return message_number(argument) if argument.strip(b" ") else None


def message_number_and_lines(argument: bytes) -> tuple[int, int]:
    """TOP."""
    arguments = _words(argument)
    if len(arguments) != 2:
        raise BadSyntax("a message-number and a number of lines are wanted")
    return _number(arguments[0]), _number(arguments[1])


def username(argument: bytes) -> bytes:
    """USER: not empty, UTF-8 (of which ASCII is a part) without NUL, as PLAIN has it (RFC 4616 2)."""
    if not argument or len(argument) > _USERNAME_OCTETS or b"\0" in argument:
        raise BadSyntax("a name of 1 to 255 octets is wanted")
    if not _is_utf8(argument):
        raise BadSyntax("a name is in UTF-8")
    return argument


def password(argument: bytes) -> bytes:
    """
    PASS.  What is in UTF-8 is prepared and judged by checkers.

    @raise LoginFailed: RFC 6856 2.2 wants what is not to be refused; it is nobody's password.
    """
    if not _is_utf8(argument):
        raise LoginFailed(cause="not UTF-8")
    return argument


def apop(argument: bytes) -> tuple[bytes, bytes]:
    """
    APOP (RFC 1939 7).

    @return: the name, and the digest in lower case.
    """
    name, _, digest = argument.rpartition(b" ")
    if not name or not _DIGEST.fullmatch(digest):
        raise BadSyntax("a name and a digest are wanted")
    return username(name), digest.lower()


def language(argument: bytes) -> bytes | None:
    """LANG (RFC 6856 3.2): a basic language range or `*`; None asks for a listing."""
    arguments = _words(argument)
    if len(arguments) > 1:
        raise BadSyntax("a language is wanted")
    return arguments[0] if arguments else None


def mechanism(argument: bytes) -> tuple[bytes, bytes | None]:
    """
    AUTH with an argument (RFC 5034 4).

    @return: the mechanism's name in upper case, and the initial response, still in base64; None if there is none.
    """
    arguments = _words(argument)
    if not 1 <= len(arguments) <= 2:
        raise BadSyntax("a mechanism is wanted, and an initial response at most")
    return arguments[0].upper(), arguments[1] if len(arguments) == 2 else None


def _is_utf8(octets: bytes) -> bool:
    if octets.isascii():
        return True
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _words(argument: bytes) -> list[bytes]:
    return [word for word in argument.split(b" ") if word]


def _number(digits: bytes) -> int:
    """Leading zeros are allowed (RFC 1939 says "a number" and no more); a sign is not."""
    if not digits.isdigit():
        raise BadSyntax("a number has digits only")
    digits = digits.lstrip(b"0")
    return int(digits or b"0") if len(digits) <= _DIGITS else _BEYOND_ALL

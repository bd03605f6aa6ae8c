"""
Service extensions (RFC 5321 2.2): what EHLO lists, and the parameters that come with it.

An extension is here when all of it works, and EHLO lists it when it can be used by this client at this moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mailhost.envelope import Client, Parameters
from mailhost.refusal import MessageTooLarge
from mailhost.smtp.grammar import BadParameter, UnknownParameter
from mailhost.smtp.listener import Listener


def offered(listener: Listener, client: Client) -> list[str]:
    """EHLO's lines, without the first."""
    found = ["PIPELINING", f"SIZE {listener.limits.message_octets}", "8BITMIME", "ENHANCEDSTATUSCODES"]
    if listener.starttls and client.tls is None:
        found.append("STARTTLS")
    if listener.auth and client.account is None:
        mechanisms = listener.login.mechanisms(listener.protects(client))
        if mechanisms:
            found.append(f"AUTH {b' '.join(mechanisms).decode('ascii')}")
    found.append("HELP")
    return found


def check_mail_parameters(parameters: Parameters, listener: Listener) -> None:
    """@raise Refusal: a parameter of MAIL is not offered, or its value is wrong, or asks for too much."""
    for keyword, value in parameters.items():
        check = _MAIL_PARAMETERS.get(keyword)
        if check is None:
            raise UnknownParameter(keyword)
        check(value, listener)


def check_rcpt_parameters(parameters: Parameters) -> None:
    """@raise UnknownParameter: always, since no extension here brings a parameter of RCPT."""
    for keyword in parameters:
        raise UnknownParameter(keyword)


def _size(value: str | None, listener: Listener) -> None:
    """RFC 1870 3 to 6: up to twenty digits; a declaration that is too large spares both sides the message."""
    if value is None or not _SIZE.fullmatch(value):
        raise BadParameter("SIZE=octets")
    if int(value) > listener.limits.message_octets:
        raise MessageTooLarge(f"the limit is {listener.limits.message_octets} octets")


def _body(value: str | None, listener: Listener) -> None:
    """RFC 6152 3.  Content is taken and kept as it is, whichever it says."""
    if value is None:
        raise BadParameter("BODY=7BIT or BODY=8BITMIME")
    if value.upper() not in ("7BIT", "8BITMIME"):
        raise UnknownParameter(f"BODY={value}")


def _auth(value: str | None, listener: Listener) -> None:
    """RFC 4954 5: who submitted it elsewhere, in xtext.  It is checked and passed on; nobody here trusts it."""
    if not listener.auth:
        raise UnknownParameter("AUTH")
    if value is None or not _XTEXT.fullmatch(value):
        raise BadParameter("AUTH=<> or AUTH=mailbox in xtext")


_SIZE = re.compile("[0-9]{1,20}")
_XTEXT = re.compile(r"<>|(?:[!-*,-<>-~]|\+[0-9A-F]{2})++")

_MAIL_PARAMETERS: dict[str, Callable[[str | None, Listener], None]] = {
    "SIZE": _size,
    "BODY": _body,
    "AUTH": _auth,
}

"""
SMTP's arguments, from octets to values (RFC 5321 4.1.2).

Strict wherever leniency would let two programs read one address in two ways.  Lenient where clients are known to be careless and
nothing can be misread: one space behind the colon of `FROM:` and `TO:`, spaces at the end, several spaces between parameters, and
whatever a client calls itself.

Source routes are read and dropped (RFC 5321 appendix C).  No expression here can go back over what it has taken: every repetition
is possessive, and none of them holds a choice or a group that is captured, which early releases of Python 3.11 got wrong.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Parameters, Path
from mailhost.refusal import Refusal

# RFC 5321 4.5.3.1.1 wants 64 at least.  Reverse-paths with an address folded into them (VERP, SRS, BATV) are often longer.
_LOCAL_PART_OCTETS = 255
# RFC 5321 4.5.3.1.2, and no name in the DNS is longer.
_DOMAIN_OCTETS = 255


class BadSyntax(Refusal):
    """A command's argument is not what the grammar says."""


class BadReversePath(BadSyntax):
    """What stands where the reverse-path should is none."""


class BadForwardPath(BadSyntax):
    """What stands where the forward-path should is none."""


class BadParameter(BadSyntax):
    """A parameter that is known has a value that it cannot have, or is there twice, or is no parameter at all."""


class UnknownParameter(Refusal):
    """A parameter of an extension that was not offered, or a value that asks for one (RFC 5321 4.1.1.11)."""


class NonASCIIAddress(Refusal):
    """An address beyond ASCII, where SMTPUTF8 was not offered or not asked for (RFC 6531 3.5)."""


_DOT_STRING = rb"[\w!#$%&'*+/=?^`{|}~-]++(?:\.[\w!#$%&'*+/=?^`{|}~-]++)*+"  # \w of octets is ASCII only
_QUOTED = rb"[ !#-\[\]-~]*+(?:\\[ -~][ !#-\[\]-~]*+)*+"
# RFC 5321 4.1.2 is firm about the underscore: not in a domain, and 501 for whoever sends one.
_LABEL = rb"[A-Za-z0-9]++(?:-++[A-Za-z0-9]++)*+"
_DOMAIN = _LABEL + rb"(?:\." + _LABEL + rb")*+"
_ROUTE = rb"(?:@" + _DOMAIN + rb"(?:,@" + _DOMAIN + rb")*+:)?+"
_LITERAL = rb"[!-Z^-~]++"

# Nearly every path is one of these.
_ORDINARY = rb": ?<(" + _DOT_STRING + rb")@(" + _DOMAIN + rb")>"
_ORDINARY_FROM = re.compile(rb"(?i:FROM)" + _ORDINARY)
_ORDINARY_TO = re.compile(rb"(?i:TO)" + _ORDINARY)
# Shorter than this, nothing in a path can be too long.
_ORDINARY_OCTETS = 255

_FROM = re.compile(rb"(?i:FROM): ?")
_TO = re.compile(rb"(?i:TO): ?")
_MAILBOX = re.compile(
    rb"<%b(?:(?P<dot_string>%b)|\"(?P<quoted>%b)\")@(?:(?P<domain>%b)|\[(?P<literal>%b)\])>"
    % (_ROUTE, _DOT_STRING, _QUOTED, _DOMAIN, _LITERAL)
)
_POSTMASTER = re.compile(rb"<((?i:postmaster))>")
_QUOTED_PAIR = re.compile(rb"\\(.)")

_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*+)(?:=([!-<>-~]++))?")

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")


def mail(argument: bytes) -> tuple[Path, Parameters]:
    """
    @param argument: of MAIL: `FROM:<ann@example.test> SIZE=2000`.
    @raise BadReversePath: or another refusal of this module.
    """
    found = _ORDINARY_FROM.match(argument)
    if found is not None and found.end() < _ORDINARY_OCTETS:
        path, end = Path(str(found[1], "ascii"), str(found[2], "ascii")), found.end()
    else:
        path, end = _reverse_path(argument)
    return path, parameters(argument[end:]) if end < len(argument) else NO_PARAMETERS


def rcpt(argument: bytes) -> tuple[Path, Parameters]:
    """
    @param argument: of RCPT: `TO:<bob@example.test>`.
    @return: the path of `<postmaster>` has an empty domain (RFC 5321 4.1.1.3).
    @raise BadForwardPath: or another refusal of this module.
    """
    found = _ORDINARY_TO.match(argument)
    if found is not None and found.end() < _ORDINARY_OCTETS:
        path, end = Path(str(found[1], "ascii"), str(found[2], "ascii")), found.end()
    else:
        path, end = _forward_path(argument)
    return path, parameters(argument[end:]) if end < len(argument) else NO_PARAMETERS


def _reverse_path(argument: bytes) -> tuple[Path, int]:
    """Any reverse-path, and where it ends."""
    begin = _FROM.match(argument)
    if begin is None:
        raise BadSyntax("MAIL FROM:<address>")
    if argument[begin.end() : begin.end() + 2] == b"<>":
        return NULL_REVERSE_PATH, begin.end() + 2
    return _mailbox(argument, begin.end(), BadReversePath)


def _forward_path(argument: bytes) -> tuple[Path, int]:
    """Any forward-path, and where it ends."""
    begin = _TO.match(argument)
    if begin is None:
        raise BadSyntax("RCPT TO:<address>")
    postmaster = _POSTMASTER.match(argument, begin.end())
    if postmaster is not None:
        return Path(str(postmaster[1], "ascii"), ""), postmaster.end()
    return _mailbox(argument, begin.end(), BadForwardPath)


def _mailbox(argument: bytes, begin: int, bad: type[BadSyntax]) -> tuple[Path, int]:
    """
    `<local-part@domain>` in all its forms, and where it ends.

    @param bad: what is raised when it is none.
    """
    found = _MAILBOX.match(argument, begin)
    if found is None:
        if not argument.isascii():
            raise NonASCIIAddress
        raise bad
    local_part = found["dot_string"]
    if local_part is None:
        local_part = _QUOTED_PAIR.sub(rb"\1", found["quoted"])
    if len(local_part) > _LOCAL_PART_OCTETS:
        raise bad(f"a local part has at most {_LOCAL_PART_OCTETS} octets")
    domain = found["domain"]
    if domain is None:
        domain = _literal(found["literal"], bad)
    if len(domain) > _DOMAIN_OCTETS:
        raise bad(f"a domain has at most {_DOMAIN_OCTETS} octets")
    return Path(str(local_part, "ascii"), str(domain, "ascii")), found.end()


def _literal(octets: bytes, bad: type[BadSyntax]) -> bytes:
    """An address literal with its brackets (RFC 5321 4.1.3).  IPv6 is the only tag that was ever registered."""
    text = str(octets, "ascii")
    try:
        if text[:5].upper() != "IPV6:":
            IPv4Address(text)
        elif IPv6Address(text[5:]).scope_id is not None:
            raise ValueError("a zone means nothing to another host")
    except ValueError:
        raise bad("an address literal is [192.0.2.1] or [IPv6:2001:db8::1]") from None
    return b"[" + octets + b"]"


def parameters(octets: bytes) -> Parameters:
    """
    @param octets: all that follows a path, from the first space on.
    @return: keywords in upper case, in the order in which they were given.
    @raise BadParameter: what is there is no list of parameters, or one of them is there twice.
    """
    if octets[:1] not in (b" ", b"\t"):
        raise BadParameter("a space must follow the address")
    found: dict[str, str | None] = {}
    for word in octets.strip(b" \t").split(b" "):
        if not word:
            continue
        parameter = _PARAMETER.fullmatch(word)
        if parameter is None:
            raise BadParameter("KEYWORD or KEYWORD=value")
        keyword, value = str(parameter[1], "ascii").upper(), parameter[2]
        if keyword in found:
            raise BadParameter(f"{keyword} is there twice")
        found[keyword] = None if value is None else str(value, "ascii")
    return found or NO_PARAMETERS


def helo(argument: bytes) -> str:
    """
    What a client calls itself in EHLO or HELO.

    Half the world's clients have no name, or one with an underscore, a space or an umlaut, and RFC 5321 4.1.4 forbids refusing mail
    for a name that is wrong.  So anything goes that cannot break a line; octets beyond ASCII become `?`.

    @raise BadSyntax: none is there, or it holds control characters, or no domain could be so long.
    """
    name = argument.strip(b" \t")
    if not name:
        raise BadSyntax("EHLO name-of-your-host")
    if len(name) > _DOMAIN_OCTETS:
        raise BadSyntax(f"a domain has at most {_DOMAIN_OCTETS} octets")
    if _CONTROL.search(name):
        raise BadSyntax("control characters in the name of your host")
    return str(_BEYOND_ASCII.sub(b"?", name), "ascii")

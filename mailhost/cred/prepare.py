"""Names and passwords in the one form in which they are compared (RFC 4616 2, RFC 5802 5.1)."""

from __future__ import annotations

import stringprep
import unicodedata

import idna

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def name(text: str) -> str:
    """
    An account's one name: the local part in lower case and composed (RFC 8265 3.3), the domain in lower-case A-labels (RFC 5891).

    These are an address book's canonical addresses too, so that a login opens the maildrop that its mail goes to.  Lower case, not
    case folding, keeps `ß` and `ss` apart.  Anything is taken: what is no address is nobody's name.
    """
    if text.isascii():
        return text.lower()
    local_part, at, domain = text.rpartition("@")
    if not at:
        return _lower(text)
    return f"{_lower(local_part)}@{_domain(domain)}"


def _lower(text: str) -> str:
    return unicodedata.normalize("NFC", text.lower())


def _domain(domain: str) -> str:
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except ValueError:
        return _lower(domain)


def name_of(octets: bytes) -> str:
    """The same for what a client sent; octets that are no UTF-8 become text that no file can hold."""
    return name(octets.decode("utf-8", "surrogateescape"))


def password(octets: bytes) -> bytes:
    """
    SASLprep (RFC 4013), so that a password typed on another system has the same octets.

    One that SASLprep prohibits, or that is no UTF-8, stays as it is: to refuse it would lock out who has it, and it then matches
    nothing but itself.
    """
    if octets.isascii():
        return octets
    try:
        prepared = _saslprep(octets.decode("utf-8"))
    except ValueError:
        return octets
    return prepared.encode("utf-8") or octets


def _saslprep(text: str) -> str:
    """@raise ValueError: a character that is prohibited, or a mix of directions (RFC 3454 6)."""
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(prohibited(character) for character in prepared for prohibited in _PROHIBITED):
        raise ValueError("prohibited character")
    if any(map(stringprep.in_table_d1, prepared)):
        ends_right = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if any(map(stringprep.in_table_d2, prepared)) or not ends_right:
            raise ValueError("mixed directions")
    return prepared

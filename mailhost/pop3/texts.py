"""
What is said to people, in their language (RFC 6856 3).

English stands in the code.  Each other language is a file of `languages/`: its tag (RFC 5646), its own name, and its text for each
English one; what is missing there is said in English.  A text may hold one number, which stands as `{}` in the file.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources

ENGLISH_TAG = b"en"

# Status, response code, text.  Status and code are for programs and stay as they are (RFC 2449 8).
_FIRST_LINE = re.compile(rb"(\+OK |-ERR )(\[[^]]*\] )?(.+)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]+")


class Language:
    """One language's texts; the one without any is English."""

    def __init__(self, tag: bytes, name: str, texts: Mapping[str, str]) -> None:
        self.tag = tag
        self.name = name
        self._texts = texts

    def said(self, octets: bytes) -> bytes:
        """
        The beginning of a reply, at least its first line, in this language.

        @return: the same if nothing is known for it, as for numbers alone.
        """
        if not self._texts:
            return octets
        end = octets.find(b"\r\n")
        found = _FIRST_LINE.fullmatch(octets, 0, end)
        if found is None:
            return octets
        status, code, text = found.groups(b"")
        return status + code + self._text(text.decode("utf-8")).encode("utf-8") + octets[end:]

    def _text(self, english: str) -> str:
        """A refusal's detail stands behind a colon, and is a text of its own."""
        own = self._texts.get(english)
        if own is not None:
            return own
        number = _NUMBER.search(english)
        if number is not None:
            own = self._texts.get(f"{english[: number.start()]}{{}}{english[number.end() :]}")
            if own is not None:
                return own.replace("{}", number[0])
        why, colon, detail = english.partition(": ")
        return f"{self._texts.get(why, why)}: {self._text(detail)}" if colon else english


ENGLISH = Language(ENGLISH_TAG, "English", {})


class Languages:
    """Those that LANG offers."""

    def __init__(self, languages: Iterable[Language]) -> None:
        self._languages = (ENGLISH, *sorted(languages, key=lambda language: language.tag))

    def listing(self) -> list[bytes]:
        """Tag and name of each."""
        return [language.tag + b" " + language.name.encode("utf-8") for language in self._languages]

    def find(self, wanted: bytes) -> Language | None:
        """
        @param wanted: a basic language range (RFC 4647 2.1), in any case.
        @return: one that it matches (3.3.1), or else that its beginning matches, as a look-up (3.4) would find it.
        """
        subtags = wanted.lower().split(b"-")
        while subtags:
            beginning = b"-".join(subtags)
            for language in self._languages:
                tag = language.tag.lower()
                if tag == beginning or tag.startswith(beginning + b"-"):
                    return language
            subtags.pop()
        return None


@functools.cache
def shipped() -> Languages:
    """The languages of this package, read at the first call."""
    folder = resources.files(__package__) / "languages"
    return Languages(parse(file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".toml"))


def parse(text: str) -> Language:
    """A file of `languages/`."""
    document = tomllib.loads(text)
    return Language(document["tag"].encode("ascii"), document["name"], document["texts"])

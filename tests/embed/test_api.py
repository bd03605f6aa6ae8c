"""
The public surface: what docs/api.md lists is there, what is there is listed, and signatures stay as they are.

A failure here is a question: is this change meant?  Then tests/embed/public_names.txt is written anew, by `python tests/embed/test_api.py`,
and the changelog says what has changed.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zope.interface import Interface
from zope.interface.interface import InterfaceClass, Method

from mailhost import embed

PAGE = Path(__file__).parent.parent.parent / "docs" / "api.md"
SNAPSHOT = Path(__file__).parent / "public_names.txt"


def listed() -> dict[str, Any]:
    """Every name on the page, in full, and what it names."""
    page = PAGE.read_text()
    names = [f"mailhost.embed.{name}" for name in re.findall(r"^\| `([\w]+)` .*\| 0\.1 \|$", page, re.M)]
    names = [name for name in names if name != "mailhost.embed.mail_host"]
    names += re.findall(r"^\| `(mailhost\.[\w.]+)`", page, re.M)
    found = {}
    for name in names:
        module, _, attribute = name.rpartition(".")
        found[name] = getattr(importlib.import_module(module), attribute)
    return found


def surface() -> Iterator[str]:
    """One line for each name, and for each public name in it."""
    for name, value in sorted(listed().items()):
        yield f"{name}{signature(value)}"
        yield from (f"    {line}" for line in sorted(members(value)))


def signature(value: Any) -> str:
    if isinstance(value, InterfaceClass) or not callable(value) or is_exception(value) or hasattr(value, "_fields"):
        return ""
    parameters = inspect.signature(value).parameters.values()
    return f"({', '.join(shown(one) for one in parameters)})"


def shown(one: inspect.Parameter) -> str:
    """Names and whether they are needed: defaults and types may grow."""
    star = "*" if one.kind is one.KEYWORD_ONLY else "**" if one.kind is one.VAR_KEYWORD else ""
    return f"{star}{one.name}" + ("=" if one.default is not one.empty else "")


def is_exception(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def members(value: Any) -> Iterator[str]:
    if isinstance(value, InterfaceClass):
        for name, description in value.namesAndDescriptions(all=True):
            yield name + (description.getSignatureString() if isinstance(description, Method) else "")
    elif isinstance(value, type):
        fields = getattr(value, "_fields", None) or getattr(value, "__dataclass_fields__", ())
        yield from fields
        own = {name: one for base in value.__mro__ for name, one in vars(base).items() if ours(base)}
        for name, one in own.items():
            if not name.startswith("_") and name not in fields:
                yield name + (signature(one) if inspect.isfunction(one) else "")


def ours(base: type) -> bool:
    return base.__module__.startswith("mailhost.")


def test_the_page_lists_all() -> None:
    """Page and module name the same; each has a docstring."""
    found = listed()
    assert sorted(name.rpartition(".")[2] for name in found if name.startswith("mailhost.embed.")) == sorted(
        embed.__all__
    )
    without = [
        name
        for name, value in found.items()
        if (isinstance(value, type) or callable(value)) and not (value.__doc__ or "").strip()
    ]
    assert without == []


def test_the_surface_is_as_it_was() -> None:
    """No public name, parameter or method has come, gone or changed unnoticed."""
    assert list(surface()) == SNAPSHOT.read_text().splitlines()


def test_interfaces_are_interfaces() -> None:
    """Names that begin with I are what zope.interface calls one."""
    for name, value in listed().items():
        if re.match(r"I[A-Z]", name.rpartition(".")[2]) and "InProcess" not in name:
            assert value.extends(Interface), name


if __name__ == "__main__":
    SNAPSHOT.write_text("".join(f"{line}\n" for line in surface()))

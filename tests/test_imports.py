"""
The folder tree is the architecture: imports point down, and this reads every import line to see that they do.

Parts of one row do not import each other, but for the plain values of the lowest.  Imports inside functions count like all others;
only the reactor may be imported there, and nowhere else.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

ROWS = (
    ("embed", "testing", "tools", "plugins"),
    ("service",),
    ("smtp", "pop3", "cred", "delivery", "spool", "policy", "foreign"),
    ("wire",),
    ("sasl", "octets"),
    ("interfaces", "refusal", "events", "limits", "envelope"),
)
ROW = {part: number for number, row in enumerate(ROWS) for part in row}
VALUES = len(ROWS) - 1
WIRE = ROW["wire"]

# All of a protocol must be testable without a transport, but for the module that brings the two together.
PROTOCOLS = ("smtp", "pop3")
WITH_TRANSPORT = "factory"
TRANSPORTS = (
    "OpenSSL",
    "socket",
    "ssl",
    "twisted.application",
    "twisted.internet.abstract",
    "twisted.internet.endpoints",
    "twisted.internet.protocol",
    "twisted.internet.reactor",
    "twisted.internet.ssl",
    "twisted.internet.stdio",
    "twisted.internet.tcp",
    "twisted.internet.unix",
    "twisted.protocols",
)


class Import(NamedTuple):
    """One imported name."""

    line: int
    name: str
    """Dotted, with what was imported from a module as its last component: `twisted.internet.reactor`."""
    at_module_level: bool


def imports(path: Path, root: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_bytes())
    in_functions = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(outer)
    }
    package = ".".join(path.relative_to(root).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, package)
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield Import(node.lineno, name, node not in in_functions)


def absolute(node: ast.ImportFrom, package: str) -> str:
    """The module that an import line names, whether by dots or in full."""
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def part_of(path: Path, root: Path) -> str:
    """Where a file stands in the picture: the name below `mailhost/`, or `plugins`."""
    parts = path.relative_to(root).with_suffix("").parts
    return "plugins" if parts[0] == "twisted" else parts[1]


def is_pure(path: Path, root: Path) -> bool:
    part = part_of(path, root)
    return ROW[part] > WIRE or (part in PROTOCOLS and path.stem != WITH_TRANSPORT)


def is_transport(name: str) -> bool:
    return any(name == module or name.startswith(module + ".") for module in TRANSPORTS) or (
        name.startswith("twisted.internet.interfaces.") and name.endswith(("Transport", "Protocol", "Port"))
    )


def wrong_direction(part: str, imported: str) -> bool:
    if imported == part:
        return False
    if imported not in ROW or ROW[imported] < ROW[part]:
        return True
    return ROW[imported] == ROW[part] != VALUES


def wrong_imports(path: Path, root: Path) -> Iterator[str]:
    part = part_of(path, root)
    if part not in ROW:
        yield "has no place in the picture"
        return
    for line, name, at_module_level in imports(path, root):
        top, _, rest = name.partition(".")
        if top == "mailhost" and wrong_direction(part, rest.partition(".")[0]):
            yield f"line {line}: {part} imports {name}"
        if name == "twisted.internet.reactor" and at_module_level:
            yield f"line {line}: the reactor is imported at module level"
        elif is_pure(path, root) and is_transport(name):
            yield f"line {line}: {name} is a transport's"


def is_bare(package: Path) -> bool:
    """Whether an `__init__.py` is empty but for a docstring."""
    body = ast.parse(package.read_bytes()).body
    docstrings = [node for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    return len(body) <= 1 and body == docstrings


def complaints(root: Path) -> list[str]:
    """All that is wrong below `root`, one line each."""
    found = []
    for path in sorted([*root.glob("mailhost/**/*.py"), *root.glob("twisted/**/*.py")]):
        shown = path.relative_to(root).as_posix()
        if shown.startswith("twisted/") and path.name == "__init__.py":
            found.append(f"{shown}: would hide Twisted")
        elif path.name == "__init__.py" and not is_bare(path):
            found.append(f"{shown}: holds more than a docstring")
        elif shown != "mailhost/__init__.py":
            found += [f"{shown}: {what}" for what in wrong_imports(path, root)]
    return found


def test_imports_point_down() -> None:
    """Every import line of the program is as the picture has it."""
    assert (ROOT / "mailhost" / "interfaces.py").exists()
    assert complaints(ROOT) == []


ALLOWED = {
    "mailhost/__init__.py": '"""Docstring."""',
    "mailhost/smtp/__init__.py": "",
    "mailhost/interfaces.py": "from mailhost.envelope import Path",
    "mailhost/octets.py": "from mailhost.refusal import Refusal\nimport twisted.internet.defer",
    "mailhost/smtp/session.py": "from . import grammar\nfrom ..refusal import Refusal\nfrom mailhost.wire.proxy import x",
    "mailhost/smtp/factory.py": "from twisted.internet.protocol import Factory\nimport mailhost.smtp.session",
    "mailhost/spool/log/index.py": "from mailhost.spool.files import Files\nfrom twisted.internet.interfaces import IReactorTime",
    "mailhost/pop3/session.py": "from twisted.internet.interfaces import IReactorTime",
    "mailhost/service/assemble.py": "import mailhost.smtp.factory\nimport mailhost.spool.log.spool",
    "mailhost/tools/main.py": "def main():\n    from twisted.internet import reactor\n    import mailhost.service.tap",
    "twisted/plugins/mailhost_plugin.py": "import mailhost.service.tap",
}

FORBIDDEN = [
    ("mailhost/smtp/session.py", "import mailhost.spool.memory", "line 1: smtp imports mailhost.spool.memory"),
    ("mailhost/smtp/session.py", "from mailhost import spool", "line 1: smtp imports mailhost.spool"),
    ("mailhost/spool/memory.py", "from ..pop3 import replies", "line 1: spool imports mailhost.pop3.replies"),
    ("mailhost/spool/log/index.py", "from ... import cred", "line 1: spool imports mailhost.cred"),
    ("mailhost/cred/login.py", "def f():\n    import mailhost.delivery", "line 2: cred imports mailhost.delivery"),
    ("mailhost/wire/conversation.py", "import mailhost.smtp.replies", "line 1: wire imports mailhost.smtp.replies"),
    ("mailhost/delivery/avatar.py", "import mailhost.service.host", "line 1: delivery imports mailhost.service.host"),
    ("mailhost/octets.py", "import mailhost.sasl", "line 1: octets imports mailhost.sasl"),
    ("mailhost/events.py", "import mailhost.octets", "line 1: events imports mailhost.octets"),
    ("mailhost/tools/main.py", "import mailhost.embed", "line 1: tools imports mailhost.embed"),
    ("mailhost/smtp/session.py", "import mailhost.nowhere", "line 1: smtp imports mailhost.nowhere"),
    ("mailhost/extra.py", "", "has no place in the picture"),
    (
        "mailhost/service/host.py",
        "from twisted.internet import defer, reactor",
        "line 1: the reactor is imported at module level",
    ),
    (
        "twisted/plugins/mailhost_plugin.py",
        "if True:\n    import twisted.internet.reactor",
        "line 2: the reactor is imported at module level",
    ),
    (
        "mailhost/pop3/session.py",
        "from twisted.internet.protocol import Protocol",
        "line 1: twisted.internet.protocol.Protocol is a transport's",
    ),
    (
        "mailhost/smtp/content.py",
        "from twisted.internet.interfaces import ITransport",
        "line 1: twisted.internet.interfaces.ITransport is a transport's",
    ),
    (
        "mailhost/smtp/grammar.py",
        "from twisted.protocols import basic",
        "line 1: twisted.protocols.basic is a transport's",
    ),
    ("mailhost/pop3/retrieval.py", "import socket", "line 1: socket is a transport's"),
    ("mailhost/sasl.py", "import OpenSSL.SSL", "line 1: OpenSSL.SSL is a transport's"),
    ("mailhost/smtp/__init__.py", '"""Docstring."""\nX = 1', "holds more than a docstring"),
    ("mailhost/__init__.py", "import mailhost.envelope", "holds more than a docstring"),
    ("twisted/plugins/__init__.py", "", "would hide Twisted"),
    ("twisted/__init__.py", "", "would hide Twisted"),
]


def plant(root: Path, files: dict[str, str]) -> None:
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


def test_what_is_allowed(tmp_path: Path) -> None:
    """Imports that point down are no complaint."""
    plant(tmp_path, ALLOWED)
    assert complaints(tmp_path) == []


@pytest.mark.parametrize(("path", "source", "complaint"), FORBIDDEN)
def test_what_is_not(tmp_path: Path, path: str, source: str, complaint: str) -> None:
    """One wrong line in a tree that is right otherwise is found and named."""
    plant(tmp_path, {**ALLOWED, path: source})
    assert complaints(tmp_path) == [f"{path}: {complaint}"]

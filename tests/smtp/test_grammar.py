"""Arguments of commands: what is taken and what it means, what is refused and as what."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailhost.envelope import NULL_REVERSE_PATH, Path
from mailhost.refusal import Refusal
from mailhost.smtp.grammar import (
    BadForwardPath,
    BadParameter,
    BadReversePath,
    BadSyntax,
    NonASCIIAddress,
    helo,
    mail,
    rcpt,
)

LONG = "a" * 255
ATEXT = "!#$%&'*+-/=?^_`{|}~"

TAKEN = [
    # the path as sent, what it means, and how it is written again
    ("<ann@far.example>", Path("ann", "far.example"), "<ann@far.example>"),
    ("<Ann.Bell@Far.Example>", Path("Ann.Bell", "Far.Example"), "<Ann.Bell@Far.Example>"),
    (f"<{ATEXT}@far.example>", Path(ATEXT, "far.example"), f"<{ATEXT}@far.example>"),
    ("<a@b>", Path("a", "b"), "<a@b>"),
    ("<1@2.3>", Path("1", "2.3"), "<1@2.3>"),
    ("<a@x--y.z-1.example>", Path("a", "x--y.z-1.example"), "<a@x--y.z-1.example>"),
    ("<user%elsewhere.example@far.example>", Path("user%elsewhere.example", "far.example"), None),
    ("<elsewhere.example!user@far.example>", Path("elsewhere.example!user", "far.example"), None),
    (f"<{LONG}@far.example>", Path(LONG, "far.example"), None),
    (f"<a@{'b' * 255}>", Path("a", "b" * 255), None),
    ('<"ann"@far.example>', Path("ann", "far.example"), "<ann@far.example>"),
    ('<"a b"@far.example>', Path("a b", "far.example"), '<"a b"@far.example>'),
    ('<"a@b"@far.example>', Path("a@b", "far.example"), '<"a@b"@far.example>'),
    ('<"a>b"@far.example>', Path("a>b", "far.example"), '<"a>b"@far.example>'),
    (r'<"a\"b\\c\d"@far.example>', Path('a"b\\cd', "far.example"), r'<"a\"b\\cd"@far.example>'),
    ('<".a..b."@far.example>', Path(".a..b.", "far.example"), '<".a..b."@far.example>'),
    ('<""@far.example>', Path("", "far.example"), '<""@far.example>'),
    ("<ann@[192.0.2.1]>", Path("ann", "[192.0.2.1]"), "<ann@[192.0.2.1]>"),
    ("<ann@[IPv6:2001:db8::1]>", Path("ann", "[IPv6:2001:db8::1]"), "<ann@[IPv6:2001:db8::1]>"),
    ("<ann@[ipv6:::1]>", Path("ann", "[ipv6:::1]"), None),
    ("<@one.example:ann@far.example>", Path("ann", "far.example"), "<ann@far.example>"),
    ('<@one.example,@two.example:"a b"@far.example>', Path("a b", "far.example"), None),
]

REFUSED_PATHS = [
    "",
    "<",
    "<<ann@far.example>>",
    "ann@far.example",
    "<ann@far.example",
    "ann@far.example>",
    "<ann>",
    "<@far.example>",
    "<ann@>",
    "<ann@far.example.>",
    "<ann@.far.example>",
    "<ann@far..example>",
    "<ann@-far.example>",
    "<ann@far-.example>",
    "<ann@far_away.example>",
    "<ann@far.example,bob@far.example>",
    "<ann@@far.example>",
    "<ann@bob@far.example>",
    "<.ann@far.example>",
    "<ann.@far.example>",
    "<a..b@far.example>",
    "<a b@far.example>",
    "< ann@far.example>",
    "<ann@far.example >",
    "<ann (comment)@far.example>",
    '<"ann@far.example>',
    '<"ann"x@far.example>',
    '<x"ann"@far.example>',
    '<"a"b"@far.example>',
    '<"a\\"@far.example>',
    '<"a\tb"@far.example>',
    '<"a\rb"@far.example>',
    "<ann@far.example\0>",
    "<ann\0@far.example>",
    "<ann@[192.0.2.256]>",
    "<ann@[192.0.2]>",
    "<ann@[192.0.2.01]>",
    "<ann@[ 192.0.2.1]>",
    "<ann@[]>",
    "<ann@[IPv6:]>",
    "<ann@[IPv6:192.0.2.1]>",
    "<ann@[IPv6:fe80::1%eth0]>",
    "<ann@[2001:db8::1]>",
    "<ann@[tag:content]>",
    "<ann@192.0.2.1]>",
    "<one.example:ann@far.example>",
    "<@one.example,two.example:ann@far.example>",
    "<@one.example,@two.example>",
    "<@one.example: ann@far.example>",
    f"<{LONG}a@far.example>",
    f"<a@{'b' * 256}>",
]


@pytest.mark.parametrize(("sent", "path", "written"), TAKEN)
def test_paths(sent: str, path: Path, written: str | None) -> None:
    """One grammar for both paths, and what is written again is read as the same."""
    octets = sent.encode("ascii")
    assert mail(b"FROM:" + octets) == (path, {})
    assert rcpt(b"TO:" + octets) == (path, {})
    assert mail(b"from: " + octets + b" size=1") == (path, {"SIZE": "1"})
    if written is not None:
        assert str(path) == written
        assert rcpt(b"TO:" + str(path).encode("ascii"))[0] == path


@pytest.mark.parametrize("sent", REFUSED_PATHS)
def test_refused_paths(sent: str) -> None:
    """What is no path is refused as the one that it stands for."""
    with pytest.raises(BadReversePath):
        mail(b"FROM:" + sent.encode("ascii"))
    with pytest.raises(BadForwardPath):
        rcpt(b"TO:" + sent.encode("ascii"))


def test_null_reverse_path() -> None:
    """`<>` is a reverse-path and no forward-path."""
    assert mail(b"FROM:<>") == (NULL_REVERSE_PATH, {})
    assert mail(b"FROM: <> SIZE=1 BODY=7BIT") == (NULL_REVERSE_PATH, {"SIZE": "1", "BODY": "7BIT"})
    with pytest.raises(BadForwardPath):
        rcpt(b"TO:<>")


def test_postmaster() -> None:
    """`<postmaster>` is a forward-path and no reverse-path."""
    assert rcpt(b"TO:<postmaster>") == (Path("postmaster", ""), {})
    assert rcpt(b"TO:<POSTmaster> NOTIFY=NEVER") == (Path("POSTmaster", ""), {"NOTIFY": "NEVER"})
    with pytest.raises(BadReversePath):
        mail(b"FROM:<postmaster>")


@pytest.mark.parametrize("sent", ["", "FROM", "FROM :<a@b>", "FROM<a@b>", "TO:<a@b>", "XFROM:<a@b>", " FROM:<a@b>"])
def test_no_keyword(sent: str) -> None:
    """The keyword and its colon stand first and together."""
    with pytest.raises(BadSyntax) as refused:
        mail(sent.encode("ascii"))
    assert type(refused.value) is BadSyntax


@pytest.mark.parametrize("sent", ["<änn@far.example>", "<ann@fär.example>", '<"ä"@far.example>', "ä"])
def test_beyond_ascii(sent: str) -> None:
    """It is not the syntax that is wrong, but what was asked for."""
    for octets in (sent.encode("utf-8"), sent.encode("latin-1")):
        with pytest.raises(NonASCIIAddress):
            mail(b"FROM:" + octets)


@pytest.mark.parametrize(
    ("sent", "parameters"),
    [
        ("", {}),
        (" ", {}),
        (" \t ", {}),
        (" SIZE=1", {"SIZE": "1"}),
        ("   SIZE=1   BODY=8BITMIME  ", {"SIZE": "1", "BODY": "8BITMIME"}),
        (" smtputf8", {"SMTPUTF8": None}),
        (' x-1=a+b<c>!"/', {"X-1": 'a+b<c>!"/'}),
        (" 8=1", {"8": "1"}),
    ],
)
def test_parameters(sent: str, parameters: dict[str, str | None]) -> None:
    """Keywords in upper case, values as they were sent."""
    assert mail(b"FROM:<a@b>" + sent.encode("ascii")) == (Path("a", "b"), parameters)


@pytest.mark.parametrize(
    "sent",
    [
        "SIZE=1",
        "x",
        ">",
        " SIZE=",
        " =1",
        " SIZE==1",
        " -SIZE=1",
        " SI_ZE=1",
        " SIZE=1 SIZE=1",
        " size=1 SIZE=2",
        " SIZE=1\r",
        " A=\t1",
        " A=\x7f",
        " A=ä",
        " ä",
        " A\0",
        " A=1\tB=2",
    ],
)
def test_refused_parameters(sent: str) -> None:
    """What is no list of parameters, and what is there twice."""
    with pytest.raises(BadParameter):
        mail(b"FROM:<a@b>" + sent.encode("utf-8"))


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (b"client.example", "client.example"),
        (b" client.example  ", "client.example"),
        (b"[192.0.2.7]", "[192.0.2.7]"),
        (b"my_pc", "my_pc"),
        (b"two words", "two words"),
        ("Büro".encode(), "B??ro"),
        (b"(a) <b>", "(a) <b>"),
        (b"x" * 255, "x" * 255),
    ],
)
def test_helo(sent: bytes, name: str) -> None:
    """Nobody is refused for what he calls himself."""
    assert helo(sent) == name


@pytest.mark.parametrize("sent", [b"", b"  ", b"a\0b", b"a\rb", b"a\tb", b"a\x7f", b"x" * 256])
def test_refused_helo(sent: bytes) -> None:
    """But nothing gets through that could break a line of a trace field or a log."""
    with pytest.raises(BadSyntax):
        helo(sent)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_whatever_is_sent(octets: bytes) -> None:
    """Any octets make a value or a refusal, and a path never holds what could break a line."""
    for parse, argument in ((mail, b"FROM:<" + octets), (rcpt, b"TO:<" + octets), (mail, octets), (rcpt, octets)):
        try:
            path, _ = parse(argument)
        except Refusal:
            continue
        assert path.mailbox.isascii()
        assert path.mailbox.isprintable()


LOCAL = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
DOMAIN = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)?(\.[a-z0-9]+){0,3}", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(LOCAL, DOMAIN)
def test_what_is_written_is_read(local_part: str, domain: str) -> None:
    """Every path comes back from how it is written, quoted where it must be."""
    path = Path(local_part, domain)
    assert mail(f"FROM:{path}".encode("ascii")) == (path, {})
    assert rcpt(f"TO:{path}".encode("ascii")) == (path, {})


@pytest.mark.parametrize(
    "sent",
    [
        b"FROM:<" + b"a." * 6000,
        b"FROM:<" + b"a@" * 6000,
        b"FROM:<@" + b"a.a-" * 3000,
        b"FROM:<" + b"@a," * 4000,
        b'FROM:<"' + b"\\a" * 6000,
        b"FROM:<a@" + b"a-" * 6000,
        b"FROM:<a@b>" + b" A" * 6000 + b"=",
        b"FROM:<a@[" + b"1" * 12000,
    ],
)
def test_hostile_lines_cost_little(sent: bytes) -> None:
    """The longest line there can be is judged in no time, whatever is in it; going back over it would take seconds."""

    def seconds(octets: bytes) -> float:
        best = 1.0
        for _ in range(5):
            since = time.perf_counter()
            with pytest.raises(Refusal):
                mail(octets)
            best = min(best, time.perf_counter() - since)
        return best

    assert seconds(sent) < 0.02

"""The passwd file's form: what counts as an account, and what an operator reads about a line that is none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailhost.cred import scram
from mailhost.cred.passwd_format import Account, BrokenLine, parse
from mailhost.limits import Quota

SCRAM = str(scram.make(b"secret", iterations=1))


def accounts(text: str) -> dict[str, Account]:
    return parse("passwd", text.encode())


class TestAccepted:
    @pytest.mark.parametrize("text", ["", "\n", "# nobody\n", "  # nobody", "\r\n\t\r\n", "#a@x:{PLAIN}x\n"])
    def test_nobody(self, text: str) -> None:
        """Empty lines and comments are no accounts."""
        assert accounts(text) == {}

    @pytest.mark.parametrize(
        ("line", "name", "password"),
        [
            ("ann@example.test:{PLAIN}secret", "ann@example.test", b"secret"),
            ("  Ann@Example.TEST:{PLAIN}secret \r", "ann@example.test", b"secret"),
            ("ann:{PLAIN}secret", "ann", b"secret"),
            ("ann@x:{PLAIN}two words", "ann@x", b"two words"),
            ("ann@x:{PLAIN}se#cret", "ann@x", b"se#cret"),
            ("a#b@x:{PLAIN}secret", "a#b@x", b"secret"),
            ("ann@x:{PLAIN}secret # new: since May", "ann@x", b"secret"),
            ("zoë@exämple.test:{PLAIN}sëcret", "zoë@xn--exmple-cua.test", "sëcret".encode()),
            ("ann@x:{PLAIN}secret::::", "ann@x", b"secret"),
            (f"ann@x:{SCRAM}", "ann@x", b"secret"),
        ],
    )
    def test_one_account(self, line: str, name: str, password: bytes) -> None:
        """One line, one account, by its name in the form that counts."""
        parsed = accounts(line)
        assert list(parsed) == [name]
        assert parsed[name].name == name
        assert parsed[name].verifier.matches(password)

    def test_fields(self) -> None:
        """Further fields are kept for who knows them; a value may hold anything but a colon."""
        parsed = accounts("ann@x:{PLAIN}secret:quota=5G:note=a=b c:empty=")
        assert parsed["ann@x"].fields == {"quota": "5G", "note": "a=b c", "empty": ""}

    def test_quota(self) -> None:
        """The field `quota` is read here already, so that a wrong one is found with its line."""
        parsed = accounts("ann@x:{PLAIN}x:quota=100/5G\nbob@x:{PLAIN}x:note=100\neve@x:{PLAIN}x:quota=-")
        assert parsed["ann@x"].quota == Quota(100, 5 << 30)
        assert parsed["bob@x"].quota is None
        assert parsed["eve@x"].quota == Quota()

    def test_order(self) -> None:
        """Accounts stay in the file's order, the last line needs no end."""
        assert list(accounts("b@x:{PLAIN}x\n# c\n\na@x:{PLAIN}x")) == ["b@x", "a@x"]


class TestRefused:
    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("ann@x", "no colon"),
            (":{PLAIN}hunter2", "no address"),
            ("ann @x:{PLAIN}hunter2", "no address"),
            ("ann\x00@x:{PLAIN}hunter2", "no address"),
            ("ann@x:hunter2", "no {SCHEME}"),
            ("ann@x:{MD5}hunter2", "{MD5} is not known"),
            ("ann@x:{PLAIN}", "empty"),
            ("ann@x:{PLAIN}hunter2:more", "key=value"),
            ("ann@x:{PLAIN}hunter2:=x", "key=value"),
            ("ann@x:{PLAIN}hunter2:quota=5 GB", "is not a quota"),
            ("ann@x:{PLAIN}hunter2:quota=", "is not a quota"),
            ("ann@x:{SCRAM-SHA-256}hunter2", "iterations,salt"),
            ("ok@x:{PLAIN}hunter2", "ok@x is on line 2 already"),
            ("OK@X:{PLAIN}hunter2", "ok@x is on line 2 already"),
        ],
    )
    def test_names_file_and_line(self, line: str, says: str) -> None:
        """The whole file is refused, with its path, the line's number and what is wrong, and without the password."""
        with pytest.raises(BrokenLine) as caught:
            parse("/etc/passwd.mail", f"# one\nok@x:{{PLAIN}}secret\n\n{line}\nlast@x:{{PLAIN}}x\n".encode())
        assert str(caught.value).startswith("/etc/passwd.mail, line 4: ")
        assert says in str(caught.value)
        assert "hunter2" not in repr(caught.value)

    def test_not_utf8(self) -> None:
        """A file in another encoding is refused, and not quoted."""
        with pytest.raises(BrokenLine, match=r"passwd, line 1: not UTF-8$"):
            parse("passwd", b"ann@x:{PLAIN}hunter2\xe4\n")


@settings(max_examples=200)
@given(st.text(alphabet="ann@x:{PLAIN}= #\n\r\täß,", max_size=60))
def test_any_text(text: str) -> None:
    """Whatever stands there, it is accounts or a BrokenLine, and accounts never share or lack a name."""
    try:
        parsed = accounts(text)
    except BrokenLine:
        return
    assert all(name and account.name == name for name, account in parsed.items())

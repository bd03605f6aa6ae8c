"""What is kept of a password, against the figures of RFC 7677."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from mailhost.cred import scram

# RFC 7677 3: user "user", password "pencil".
SALT = "W22ZaJ0SNY7soEsUEjb6gQ=="
NONCE = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
AUTH_MESSAGE = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={NONCE},s={SALT},i=4096,c=biws,r={NONCE}".encode()
CLIENT_PROOF = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
SERVER_SIGNATURE = base64.b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def rfc_verifier(monkeypatch: pytest.MonkeyPatch) -> scram.Scram:
    monkeypatch.setattr("os.urandom", lambda count: base64.b64decode(SALT))
    return scram.make(b"pencil", iterations=4096)


class TestScram:
    def test_figures_of_rfc_7677(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its client's proof is right by our stored key, and its server's signature comes of our server key."""
        verifier = rfc_verifier(monkeypatch)
        signature = hmac.digest(verifier.stored_key, AUTH_MESSAGE, "sha256")
        client_key = bytes(a ^ b for a, b in zip(CLIENT_PROOF, signature))
        assert hashlib.sha256(client_key).digest() == verifier.stored_key
        assert hmac.digest(verifier.server_key, AUTH_MESSAGE, "sha256") == SERVER_SIGNATURE

    def test_verifies_plaintext(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The right password and no other."""
        verifier = rfc_verifier(monkeypatch)
        assert verifier.matches(b"pencil")
        assert not verifier.matches(b"pencil ")
        assert not verifier.matches(b"")

    def test_form(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As Dovecot writes it: scheme, iterations, salt, stored key, server key; and it is read as it was written."""
        verifier = rfc_verifier(monkeypatch)
        text = str(verifier)
        assert text.startswith(f"{{SCRAM-SHA-256}}4096,{SALT},")
        assert text.count(",") == 3
        assert scram.parse(text) == verifier
        assert scram.parse(text.replace("SCRAM-SHA-256", "scram-sha-256")) == verifier

    def test_salts_differ(self) -> None:
        """The same password twice is kept differently."""
        one, other = (scram.make(b"secret", iterations=1) for _ in range(2))
        assert one != other
        assert one.matches(b"secret")
        assert other.matches(b"secret")

    def test_password_in_two_spellings(self) -> None:
        """One typed with a combining accent is the one typed with a composed letter (RFC 5802 5.1)."""
        assert scram.make("café".encode(), iterations=1).matches("cafe\u0301".encode())

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "4096",
            "4096,QQ==,QQ==,QQ==",
            "0,{salt},{key},{key}",
            "-1,{salt},{key},{key}",
            "1e3,{salt},{key},{key}",
            "٤,{salt},{key},{key}",
            "10000001,{salt},{key},{key}",
            "4096,,{key},{key}",
            "4096,{salt},{key},{key},{key}",
            "4096,{salt},{key}",
            "4096,{salt},{key},!{key}",
            "4096,{salt},{key}," + "QUJD" * 20,
        ],
    )
    def test_refused(self, value: str) -> None:
        """What is no verifier is refused, and not quoted."""
        text = value.format(salt=SALT, key=base64.b64encode(bytes(32)).decode())
        with pytest.raises(ValueError, match="SCRAM-SHA-256") as caught:
            scram.parse("{SCRAM-SHA-256}" + text)
        assert SALT not in str(caught.value)

    def test_default_iterations(self) -> None:
        """No fewer than RFC 7677 4 suggests."""
        assert scram.ITERATIONS >= 15_000
        assert scram.make(b"x").iterations == scram.ITERATIONS


class TestPlain:
    def test_matches(self) -> None:
        """The password itself, and no other."""
        verifier = scram.parse("{plain}se cret")
        assert verifier.matches(b"se cret")
        assert not verifier.matches(b"secret")

    def test_is_never_shown(self) -> None:
        """Neither kind shows what it holds when printed for debugging."""
        assert "hunter2" not in repr(scram.parse("{PLAIN}hunter2"))
        verifier = scram.make(b"x", iterations=1)
        assert repr(verifier) == "<SCRAM-SHA-256, 1 iterations>"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hunter2", "no {SCHEME}"),
        ("{}hunter2", "no {SCHEME}"),
        ("{PLAIN}", "empty"),
        ("{CRYPT}hunter2", "{CRYPT} is not known"),
    ],
)
def test_other_schemes(text: str, says: str) -> None:
    """The operator hears what is wrong, without the password."""
    with pytest.raises(ValueError, match=says) as caught:
        scram.parse(text)
    assert "hunter2" not in str(caught.value)

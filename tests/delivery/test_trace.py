"""The header fields that delivery adds, read back as RFC 5321 4.4 and RFC 5322 write them."""

import email
import email.utils
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailhost.delivery.trace import Trace, date_time, keyword, own_fields
from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, TLS, Client, Path

ANN = Path("ann", "example.test")
CLIENT = Client("s1", "192.0.2.7", 4711, "mx", "smtp", helo="mail.example.net", extended=True)
TLS13 = TLS("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)

# RFC 5321 4.4, as far as we use it; the comments may stand wherever CFWS may.
STAMP = re.compile(
    rb"Received: from (?P<name>\S+)(?:\s+\((?P<address>\[\S+\])\))?(?:\s+\(HELO (?P<helo>[^()\\]*)\))?"
    rb"\s+by (?P<by>\S+)\s+with (?P<with>[A-Z0-9]+)(?:\s+\((?P<tls>[^()]*)\))?"
    rb"\s+id (?P<id>[^\s;]+)(?:\s+for <(?P<for>[^\r\n]*)>)?;"
    rb"\s+(?P<date>\w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4})\r\n"
)


def trace(seconds: float = 1_700_000_000) -> Trace:
    clock = Clock()
    clock.rightNow = seconds
    return Trace("mx.example.test", clock.seconds)


def stamp(client: Client, parameters=NO_PARAMETERS, forward_paths=(ANN,), unique_id="0a1b"):
    field = trace().received(client, parameters, forward_paths, unique_id)
    parsed = STAMP.fullmatch(field)
    assert parsed, field
    return parsed


class ReceivedTests(SynchronousTestCase):
    def test_says_who_by_whom_how_and_when(self):
        """One field names the client, its address, this host, the protocol, the id, the only recipient and the time."""
        parsed = stamp(CLIENT)
        assert parsed["name"] == b"mail.example.net"
        assert parsed["address"] == b"[192.0.2.7]"
        assert parsed["helo"] is None
        assert parsed["by"] == b"mx.example.test"
        assert parsed["with"] == b"ESMTP"
        assert parsed["tls"] is None
        assert parsed["id"] == b"0a1b"
        assert parsed["for"] == b"ann@example.test"
        assert email.utils.parsedate_to_datetime(parsed["date"].decode()).timestamp() == 1700000000

    def test_tls_in_a_comment(self):
        """TLS version and cipher stand in a comment behind the keyword."""
        parsed = stamp(CLIENT._replace(tls=TLS13))
        assert parsed["with"] == b"ESMTPS"
        assert parsed["tls"] == b"TLSv1.3 TLS_AES_256_GCM_SHA384"

    def test_ipv6_address(self):
        """An IPv6 address carries its tag (RFC 5321 4.1.3)."""
        assert stamp(CLIENT._replace(host="2001:db8::1"))["address"] == b"[IPv6:2001:db8::1]"

    def test_unix_socket(self):
        """A client on a UNIX socket has no address, and a name all the same."""
        parsed = stamp(CLIENT._replace(host="", helo=""))
        assert (parsed["name"], parsed["address"]) == (b"localhost", None)

    def test_helo_literal(self):
        """A client that calls itself by a literal is quoted like one with a name."""
        assert stamp(CLIENT._replace(helo="[192.0.2.9]"))["name"] == b"[192.0.2.9]"

    def test_no_for_clause_with_several_forward_paths(self):
        """With two recipients neither is shown to the other."""
        parsed = stamp(CLIENT, forward_paths=(ANN, Path("bob", "example.test")))
        assert parsed["for"] is None
        assert b"ann" not in parsed[0]

    def test_account_is_not_shown(self):
        """After a login the keyword ends in A and nothing tells the account."""
        parsed = stamp(CLIENT._replace(account=b"secret-name@example.test", tls=TLS13, protocol="submission"))
        assert parsed["with"] == b"ESMTPSA"
        assert b"secret-name" not in parsed[0]

    def test_hostile_helo_is_kept_as_a_harmless_comment(self):
        """What is no name stands in a comment that it cannot end; the address stands where the name belongs."""
        parsed = stamp(CLIENT._replace(helo="evil) by x\r\nSubject: (y\\"))
        assert parsed["name"] == b"[192.0.2.7]"
        assert parsed["helo"] == b"evil? by x??Subject: ?y?"

    def test_long_helo(self):
        """A name longer than any domain is cut."""
        parsed = stamp(CLIENT._replace(helo="a" * 4000))
        assert parsed["helo"] == b"a" * 255

    def test_odd_unique_id(self):
        """A spool may name messages with any visible character; the field stays well-formed."""
        assert stamp(CLIENT, unique_id="a;(b)<c>")["id"] == b"a??b??c?"

    def test_folded_under_78(self):
        """Ordinary fields have no line of more than 78 octets, and unfolding gives single spaces back."""
        field = trace().received(CLIENT._replace(tls=TLS13), NO_PARAMETERS, [ANN], "00060a1b2c3d4e5f-0123456789")
        lines = field.split(b"\r\n")
        assert max(map(len, lines)) <= 78
        assert len(lines) > 3
        assert all(line.startswith(b"\t") for line in lines[1:-1])

    def test_date_follows_the_clock(self):
        """The time is formatted once a second, and anew in the next one."""
        clock = Clock()
        clock.advance(59.5)
        a_trace = Trace("mx.example.test", clock.seconds)

        def said() -> float:
            field = a_trace.received(CLIENT, NO_PARAMETERS, [ANN], "1")
            return email.utils.parsedate_to_datetime(STAMP.fullmatch(field)["date"].decode()).timestamp()

        assert said() == 59
        clock.advance(0.25)
        assert said() == 59
        clock.advance(0.25)
        assert said() == 60

    def test_fields_of_different_clients_do_not_mix(self):
        """What is remembered for one client is never written for another."""
        a_trace = trace()
        for client in (
            CLIENT,
            CLIENT._replace(host="192.0.2.8"),
            CLIENT._replace(tls=TLS13),
            CLIENT._replace(helo="b"),
        ):
            for _ in range(2):
                parsed = STAMP.fullmatch(a_trace.received(client, NO_PARAMETERS, [ANN], "1"))
                assert parsed["name"] == client.helo.encode()
                assert parsed["address"] == b"[%s]" % client.host.encode()
                assert (parsed["tls"] is not None) == (client.tls is not None)


class KeywordTests(SynchronousTestCase):
    def test_every_registered_keyword(self):
        """RFC 3848 and RFC 6531 4.3: each combination of protocol, UTF-8, TLS and login has its name."""
        for protocol, plain, utf8 in (
            ("smtp", "ESMTP", "UTF8SMTP"),
            ("submission", "ESMTP", "UTF8SMTP"),
            ("lmtp", "LMTP", "UTF8LMTP"),
        ):
            for tls, tls_letter in ((None, ""), (TLS13, "S")):
                for account, account_letter in ((None, ""), (b"ann", "A")):
                    client = CLIENT._replace(protocol=protocol, tls=tls, account=account)
                    assert keyword(client, {}) == plain + tls_letter + account_letter
                    assert keyword(client, {"SMTPUTF8": None}) == utf8 + tls_letter + account_letter

    def test_helo(self):
        """A client that said HELO speaks SMTP."""
        assert keyword(CLIENT._replace(extended=False), {}) == "SMTP"


class OwnFieldsTests(SynchronousTestCase):
    def test_return_path_then_delivered_to(self):
        """Each copy begins with where bounces go, then the address it was sent to, as the client wrote it."""
        fields = own_fields(Path("a b", "far.example"), Path("Ann+News", "Example.TEST"))
        assert fields == b'Return-Path: <"a b"@far.example>\r\nDelivered-To: Ann+News@Example.TEST\r\n'

    def test_null_reverse_path(self):
        """A bounce's return-path is empty (RFC 5321 4.5.5)."""
        assert own_fields(NULL_REVERSE_PATH, ANN).split(b"\r\n")[0] == b"Return-Path: <>"

    def test_utf8(self):
        """Internationalised addresses are written in UTF-8 (RFC 6532)."""
        assert "<jürgen@münchen.example>".encode() in own_fields(Path("jürgen", "münchen.example"), ANN)

    def test_long_paths(self):
        """A path too long for a line is cut at 900 octets, never within a character."""
        fields = own_fields(Path("ü" * 2000, "far.example"), Path("a" * 2000, "example.test"))
        for line in fields.decode().split("\r\n"):
            assert len(line.encode()) <= 998


class DateTests(SynchronousTestCase):
    def test_agrees_with_the_standard_library(self):
        """Any second of a year, and both sides of 1970 and 2038, read back as the second they were."""
        for second in (
            -86_400,
            0,
            1_709_164_800,
            1_709_251_199,
            2**31 - 1,
            2**31,
            *range(1_700_000_000, 1_732_000_000, 86_399),
        ):
            assert email.utils.parsedate_to_datetime(date_time(second)).timestamp() == second


@pytest.fixture
def set_zone(monkeypatch):
    """Sets the time zone for one test."""

    def set_zone(zone):
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "offset"), [("UTC0", "+0000"), ("EST5", "-0500"), ("NST3:30", "-0330"), ("IST-5:30", "+0530")]
)
def test_offset(set_zone, zone, offset):
    """Local time with its offset, also one that is negative and no whole number of hours."""
    set_zone(zone)
    text = date_time(1_700_000_000)
    assert text.endswith(offset)
    assert email.utils.parsedate_to_datetime(text).timestamp() == 1_700_000_000


hostile = st.text(st.characters() | st.sampled_from('\r\n\t ()\\<>";:\x00'), max_size=1100)


@settings(max_examples=200, deadline=None)
@given(hostile, hostile, hostile, hostile)
def test_nothing_breaks_out_of_its_field(helo, local_part, domain, unique_id):
    """Whatever a client says, the fields are four of ours, in order, each line within 998 octets."""
    path = Path(local_part, domain)
    client = CLIENT._replace(helo=helo)
    octets = own_fields(path, path) + trace().received(client, {}, [path], unique_id or "1")
    assert b"\n" not in octets.replace(b"\r\n", b"")
    assert b"\r" not in octets.replace(b"\r\n", b"")
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    names = [line.split(b":")[0] for line in octets.split(b"\r\n") if not line.startswith(b"\t")]
    assert names == [b"Return-Path", b"Delivered-To", b"Received", b""]
    assert b"\r\n\r\n" not in octets

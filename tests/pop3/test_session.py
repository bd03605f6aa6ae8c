"""The conversation: states, marks, the end, and everything that can come late, never or wrong."""

from __future__ import annotations

import base64

import pytest
from fakes_pop3 import NAME, PASSWORD, TLS_CREATOR, FakeMaildrop, Host, ask, raises, waits
from twisted.internet.defer import Deferred
from zope.interface import alsoProvides

from mailhost import refusal
from mailhost.events import Bug, MessageRetrieved, MessagesDeleted, SessionEnded, Trouble
from mailhost.interfaces import IVisit
from mailhost.limits import Limits
from mailhost.testing.transport import FakeTransport

ONE = b"Subject: one\r\n\r\nfirst\r\n"
TWO = b"Subject: two\r\n\r\n..dot\r\nlast\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"".join(b"%078d\r\n" % number for number in range(20_000))
CREDENTIALS = b"USER " + NAME + b"\r\nPASS " + PASSWORD + b"\r\n"
PLAIN = base64.b64encode(b"\0" + NAME + b"\0" + PASSWORD)


def let_pass(host: Host, seconds: float) -> None:
    """Time, in steps small enough for every timer in between."""
    for _ in range(int(seconds / 5) + 1):
        host.clock.advance(5)


def why_it_ended(host: Host) -> list[str]:
    return [event.why for event in host.happened(SessionEnded)]


class TestVisit:
    def test_a_whole_visit(self) -> None:
        """Look, fetch, mark, leave: what is fetched is what is stored, to the octet."""
        host = Host([ONE, TWO])
        transport = host.logged_in()
        assert ask(transport, b"STAT\r\n") == b"+OK 2 %d\r\n" % (len(ONE) + len(TWO) - 1)
        assert ask(transport, b"RETR 2\r\n") == b"+OK %d octets\r\n%s.\r\n" % (len(TWO) - 1, TWO)
        assert ask(transport, b"DELE 1\r\n").startswith(b"+OK")
        assert ask(transport, b"QUIT\r\n").startswith(b"+OK")
        assert transport.closing
        assert host.maildrop.happened == [("update", (1,)), "updated", "release", "log out"]
        transport.lose()
        assert host.maildrop.happened[-2:] == ["release", "log out"]

    def test_what_is_reported(self) -> None:
        """One event for each retrieval, one for the deletions, one for the session."""
        host = Host([ONE, TWO])
        transport = host.logged_in()
        transport.receive(b"RETR 2\r\nTOP 1 0\r\nDELE 2\r\nDELE 1\r\n")
        host.clock.advance(3)
        transport.receive(b"QUIT\r\n")
        transport.lose()
        retrieved, deleted, ended = host.events
        assert isinstance(retrieved, MessageRetrieved)
        assert retrieved[1:] == ("uid2", len(TWO) - 1)
        assert isinstance(deleted, MessagesDeleted)
        assert deleted.unique_ids == ("uid1", "uid2")
        assert isinstance(ended, SessionEnded)
        assert ended.client.account == NAME
        assert (ended.why, ended.messages, ended.seconds) == ("quit", 1, 3)
        assert ended.octets_in > len(CREDENTIALS)
        assert ended.octets_out > len(TWO)

    def test_stat_costs_nothing(self) -> None:
        """The listing is not read for it, nor for NOOP, TOP or a visit without deletions."""
        host = Host([ONE, TWO])
        ask(host.logged_in(), b"STAT\r\nNOOP\r\nTOP 1 0\r\nRSET\r\nSTAT\r\nQUIT\r\n")
        assert host.maildrop.listings == 0

    def test_the_listing_is_asked_for_once(self) -> None:
        """Whoever needs it."""
        host = Host([ONE, TWO])
        ask(host.logged_in(), b"LIST\r\nUIDL\r\nLIST 1\r\nUIDL 2\r\nDELE 1\r\nSTAT\r\nRETR 2\r\nQUIT\r\n")
        assert host.maildrop.listings == 1

    def test_a_visit_without_marks_updates_nothing(self) -> None:
        """QUIT lets go, and asks the spool for nothing."""
        host = Host([ONE])
        ask(host.logged_in(), b"DELE 1\r\nRSET\r\nQUIT\r\n")
        assert host.maildrop.happened == ["release", "log out"]

    def test_the_login_knows_its_client(self) -> None:
        """TLS and address are its `mind`."""
        host = Host([], tls=TLS_CREATOR, plaintext_login=False)
        transport = host.connect()
        transport.receive(b"STLS\r\n")
        transport.finish_handshake()
        transport.receive(CREDENTIALS)
        (client,) = host.login.clients
        assert (client.host, client.protocol, client.listener) == ("192.0.2.7", "pop3", "pop3-test")
        assert client.tls is not None


class TestVisits:
    def test_what_was_retrieved_is_told(self) -> None:
        """A maildrop on terms hears of each message that has left whole; TOP is no retrieval, and neither is a failure."""
        host = Host([b"Subject: one\r\n\r\n1\r\n", b"Subject: two\r\n\r\n2\r\n"])
        alsoProvides(host.maildrop, IVisit)
        told: list[str] = []
        host.maildrop.retrieved = told.append  # type: ignore[attr-defined]
        transport = host.logged_in()
        ask(transport, b"TOP 1 0\r\nRETR 2\r\nRETR 3\r\n")
        host.maildrop.contents[0].on_read = raises(refusal.ContentDamaged())
        ask(transport, b"RETR 1\r\n")
        assert told == ["uid2"]


class TestMarks:
    def test_totals_and_listings_leave_them_out(self) -> None:
        """STAT, LIST and UIDL speak of what is not marked; RSET brings all back."""
        host = Host([ONE, TWO, ONE])
        transport = host.logged_in()
        assert ask(transport, b"DELE 2\r\nSTAT\r\n").endswith(b"+OK 2 %d\r\n" % (2 * len(ONE)))
        assert ask(transport, b"LIST\r\n") == b"+OK 2 messages\r\n1 %d\r\n3 %d\r\n.\r\n" % (len(ONE), len(ONE))
        assert ask(transport, b"UIDL\r\n") == b"+OK unique-ids follow\r\n1 uid1\r\n3 uid3\r\n.\r\n"
        for command in (b"LIST 2", b"UIDL 2", b"RETR 2", b"TOP 2 0", b"DELE 2"):
            assert ask(transport, command + b"\r\n") == b"-ERR no such message\r\n"
        assert ask(transport, b"RSET\r\nSTAT\r\n").endswith(b"+OK 3 %d\r\n" % host.maildrop.totals.octets)
        assert ask(transport, b"LIST 2\r\n") == b"+OK 2 %d\r\n" % (len(TWO) - 1)

    def test_marking_in_any_order(self) -> None:
        """The spool is told once, all of them, in order."""
        host = Host([ONE] * 5)
        ask(host.logged_in(), b"DELE 5\r\nDELE 1\r\nDELE 3\r\nQUIT\r\n")
        assert host.maildrop.happened[0] == ("update", (1, 3, 5))

    @pytest.mark.parametrize("last", [b"", b"RETR 2\r\n", b"QUI", b"QUIT\n", b"QUIT now\r\n", b"DELE 2\r\nQUIT"])
    def test_whatever_is_no_quit_removes_nothing(self, last: bytes) -> None:
        """A connection that ends in any other way only logs out."""
        host = Host([ONE, TWO])
        transport = host.logged_in()
        transport.receive(b"DELE 1\r\n" + last)
        transport.lose(clean=False)
        assert host.maildrop.happened == ["release", "log out"]
        assert why_it_ended(host) == ["lost"]
        assert not host.clock.getDelayedCalls()


class TestSilence:
    def test_an_idle_session_ends_without_a_word_and_without_removing(self) -> None:
        """Ten minutes, then RFC 1939 3's autologout."""
        host = Host([ONE])
        transport = host.logged_in()
        ask(transport, b"DELE 1\r\n")
        let_pass(host, 590)
        assert not transport.closing
        let_pass(host, 10)
        assert transport.take() == b""
        assert transport.closing
        transport.lose()
        assert host.maildrop.happened == ["release", "log out"]
        assert why_it_ended(host) == ["timeout"]

    def test_who_never_logs_in_waits_for_less(self) -> None:
        """Nothing of anybody's is held, or could be lost."""
        host = Host(limits=Limits(login_seconds=60))
        transport = host.connect()
        let_pass(host, 60)
        assert transport.closing
        assert transport.take() == b""

    def test_a_sasl_exchange_does_not_stop_the_clock(self) -> None:
        """A client that never responds is not waited for either."""
        host = Host()
        transport = host.connect()
        assert ask(transport, b"AUTH PLAIN\r\n") == b"+ \r\n"
        let_pass(host, 60)
        assert transport.closing


class TestErrors:
    def test_too_many_mistakes_end_the_session(self) -> None:
        """The one that is too many is told so; nothing is removed."""
        host = Host([ONE], limits=Limits(errors=3))
        transport = host.logged_in()
        said = ask(transport, b"DELE 1\r\nWHAT\r\nUSER x\r\nRETR one\r\nQUIT\r\n").split(b"\r\n")
        assert said[1:] == [b"-ERR unknown command", b"-ERR not in this state", b"-ERR too many errors", b""]
        assert transport.closing
        transport.lose()
        assert host.maildrop.happened == ["release", "log out"]
        assert why_it_ended(host) == ["errors"]

    def test_failed_logins_are_mistakes(self) -> None:
        """A guesser is sent away."""
        host = Host(limits=Limits(errors=3))
        transport = host.connect()
        for _ in range(3):
            transport.receive(b"USER " + NAME + b"\r\nPASS wrong\r\n")
        assert transport.take().endswith(b"-ERR too many errors\r\n")

    def test_what_is_no_mistake(self) -> None:
        """Optional commands, messages that are not there, our own troubles."""
        host = Host([ONE], limits=Limits(errors=2))
        transport = host.connect()
        transport.receive(b"APOP ann abc\r\nSTLS\r\nAUTH\r\nAUTH CRAM-MD5\r\nAUTH PLAIN\r\n*\r\n")
        host.login.on_log_in = raises(refusal.LoginUnavailable())
        transport.receive(CREDENTIALS * 3)
        host.login.on_log_in = Host().login.on_log_in
        transport.receive(CREDENTIALS + b"RETR 2\r\nRETR 0\r\nDELE 9\r\nAPOP a b\r\nLANG\r\n")
        host.maildrop.on_content = raises(refusal.SpoolUnavailable())
        transport.receive(b"RETR 1\r\nRETR 1\r\nNOOP\r\n")
        assert transport.take().endswith(b"+OK done\r\n")

    def test_a_line_that_is_too_long(self) -> None:
        """It is refused as a whole, wherever its end is; the session goes on."""
        host = Host([ONE], limits=Limits(command_line_octets=255))
        transport = host.logged_in()
        assert ask(transport, b"RETR " + b" " * 300) == b""
        assert ask(transport, b"1\r\nNOOP\r\n") == b"-ERR the line is too long\r\n+OK done\r\n"
        assert ask(transport, b"LIST" + b" " * 248 + b"1\r\n") == b"+OK 1 %d\r\n" % len(ONE)

    def test_a_sasl_response_that_is_too_long_ends_the_exchange(self) -> None:
        """The next line is a command again."""
        host = Host(limits=Limits(auth_line_octets=300))
        transport = host.connect()
        said = ask(transport, b"AUTH PLAIN\r\n" + b"A" * 500 + b"\r\nCAPA\r\n")
        assert said.startswith(b"+ \r\n-ERR the line is too long\r\n+OK capabilities")

    def test_a_bare_line_feed_ends_no_command(self) -> None:
        """Neither a password nor a QUIT that another program wrote into a line."""
        host = Host([ONE])
        transport = host.logged_in()
        assert ask(transport, b"NOOP\nNOOP\r\n") == b"-ERR lines end in CRLF, not in LF\r\n+OK done\r\n"

    def test_a_large_initial_response(self) -> None:
        """No limit of command lines holds for AUTH (RFC 5034 4)."""
        host = Host()
        transport = host.connect()
        long = base64.b64encode(b"\0" + NAME + b"\0" + b"x" * 8000)
        assert ask(transport, b"AUTH PLAIN " + long + b"\r\n").startswith(b"-ERR [AUTH]")
        assert host.login.clients


class TestLogin:
    def test_a_late_answer(self) -> None:
        """What the client sent meanwhile is answered after it, in order."""
        host = Host([ONE])
        late, host.login.on_log_in = waits()
        transport = host.connect()
        transport.receive(CREDENTIALS + b"STAT\r\nQUIT\r\n")
        assert transport.take() == b"+OK send PASS\r\n"
        late.callback(None)
        assert transport.take() == b"+OK logged in\r\n+OK 1 %d\r\n+OK goodbye\r\n" % len(ONE)

    def test_no_answer(self) -> None:
        """After its limit the client is told to try again, and may."""
        host = Host([ONE])
        never, host.login.on_log_in = waits()
        transport = host.connect()
        transport.receive(CREDENTIALS)
        let_pass(host, 120)
        assert transport.take() == b"+OK send PASS\r\n-ERR [SYS/TEMP] that took too long; try again later\r\n"
        assert never.called
        assert not transport.closing

    def test_gone_before_the_answer(self) -> None:
        """The login is let go of, and whoever made it logs out (ILogin.log_in)."""
        host = Host()
        never, host.login.on_log_in = waits()
        transport = host.connect()
        transport.receive(CREDENTIALS)
        transport.lose()
        assert never.called
        assert host.maildrop.happened == []
        assert why_it_ended(host) == ["lost"]

    @pytest.mark.parametrize(
        ("error", "reply"),
        [
            (refusal.LoginFailed(), b"-ERR [AUTH] unknown account or wrong password\r\n"),
            (refusal.LoginUnavailable(), b"-ERR [SYS/TEMP] nobody can log in now; try again later\r\n"),
            (refusal.LoginForbidden(), b"-ERR [SYS/PERM] this account may not use this service\r\n"),
            (refusal.MaildropInUse(), b"-ERR [IN-USE] another session has the maildrop\r\n"),
        ],
    )
    def test_a_refusal(self, error: refusal.Refusal, reply: bytes) -> None:
        """Its response code; then the client may try again, from USER on."""
        host = Host([ONE])
        host.login.on_log_in = raises(error)
        transport = host.connect()
        assert ask(transport, CREDENTIALS).endswith(reply)
        assert ask(transport, b"PASS again\r\n") == b"-ERR send USER first\r\n"
        host.login.on_log_in = Host().login.on_log_in
        assert ask(transport, CREDENTIALS).endswith(b"+OK logged in\r\n")

    def test_a_bug(self) -> None:
        """It is reported with what was raised; the client may try again."""
        host = Host()
        host.login.on_log_in = raises(ZeroDivisionError())
        transport = host.connect()
        assert b"-ERR [SYS/TEMP] something went wrong" in ask(transport, CREDENTIALS)
        (bug,) = host.happened(Bug)
        assert isinstance(bug.failure, ZeroDivisionError)
        assert not transport.closing

    def test_passwords_have_spaces(self) -> None:
        """What stands behind PASS and one space is the password (RFC 1939 7)."""
        host = Host()
        assert ask(host.connect(), b"user " + NAME + b"\r\npass " + PASSWORD + b" \r\n").endswith(
            b"-ERR [AUTH] unknown account or wrong password\r\n"
        )
        assert ask(host.connect(), b"user " + NAME + b"\r\npass  " + PASSWORD + b"\r\n").count(b"[AUTH]") == 1
        assert ask(host.connect(), b"user " + NAME + b"\r\npass " + PASSWORD + b"\r\n").endswith(b"+OK logged in\r\n")

    def test_by_sasl(self) -> None:
        """PLAIN with and without an initial response."""
        for said in (b"AUTH PLAIN " + PLAIN, b"auth plain\r\n" + PLAIN):
            host = Host()
            assert ask(host.connect(), said + b"\r\n").endswith(b"+OK logged in\r\n")

    def test_stls_forgets_the_name(self) -> None:
        """USER before TLS is not USER under TLS."""
        host = Host(tls=TLS_CREATOR)
        transport = host.connect()
        transport.receive(b"USER " + NAME + b"\r\nSTLS\r\n")
        transport.finish_handshake()
        transport.take()
        assert ask(transport, b"PASS " + PASSWORD + b"\r\n") == b"-ERR send USER first\r\n"

    def test_auth_forgets_the_name(self) -> None:
        """Cancelled or not, it is not half of another login."""
        transport = Host().connect()
        ask(transport, b"USER " + NAME + b"\r\nAUTH PLAIN\r\n*\r\n")
        assert ask(transport, b"PASS " + PASSWORD + b"\r\n") == b"-ERR send USER first\r\n"

    def test_passwords_in_the_clear_are_not_looked_at(self) -> None:
        """Neither login nor events ever see them."""
        host = Host(tls=TLS_CREATOR, plaintext_login=False)
        transport = host.connect()
        said = ask(transport, CREDENTIALS + b"AUTH PLAIN " + PLAIN + b"\r\nAUTH PLAIN\r\n")
        assert said == b"-ERR passwords are taken under TLS only: send STLS first\r\n" * 4
        transport.lose()
        assert host.login.clients == []
        assert PASSWORD.decode() not in repr(host.events)
        assert PLAIN.decode() not in repr(host.events)


class TestTLS:
    def test_octets_behind_stls_are_not_taken_for_protected_ones(self) -> None:
        """CVE-2011-0411, told for POP3: the client is told off, and TLS does not begin."""
        host = Host(tls=TLS_CREATOR)
        transport = host.connect()
        said = ask(transport, b"STLS\r\nUSER mallory\r\nPASS x\r\n")
        assert said == b"-ERR nothing may follow STLS before TLS is up\r\n"
        assert transport.closing
        assert transport.tls is None
        assert host.login.clients == []

    def test_implicit(self) -> None:
        """The greeting follows the handshake, passwords are taken, STLS is not offered (RFC 8314 3.2)."""
        host = Host(implicit_tls=True, plaintext_login=False)
        transport = host.connect()
        transport.finish_handshake()
        assert transport.take() == b"+OK pop.example.test ready\r\n"
        said = ask(transport, b"CAPA\r\n")
        assert b"\r\nUSER\r\nUTF8 USER\r\nSASL PLAIN\r\n" in said
        assert b"STLS" not in said
        assert ask(transport, b"STLS\r\n") == b"-ERR TLS is up already\r\n"
        assert ask(transport, CREDENTIALS).endswith(b"+OK logged in\r\n")


class TestListingTrouble:
    @pytest.mark.parametrize("command", [b"LIST", b"LIST 1", b"UIDL", b"UIDL 1", b"DELE 1", b"RETR 1"])
    def test_a_late_answer(self, command: bytes) -> None:
        """The reply is the same, and in its place."""
        host, reference = Host([ONE]), Host([ONE])
        late, host.maildrop.on_listing = waits()
        transport = host.logged_in()
        assert ask(transport, command + b"\r\nNOOP\r\n") == b""
        late.callback(None)
        assert transport.take() == ask(reference.logged_in(), command + b"\r\nNOOP\r\n")

    @pytest.mark.parametrize("command", [b"LIST", b"LIST 1", b"UIDL", b"UIDL 1", b"DELE 1", b"RETR 1"])
    def test_no_answer(self, command: bytes) -> None:
        """A limit, a reply, and the session goes on; nothing was marked."""
        host = Host([ONE])
        _, host.maildrop.on_listing = waits()
        transport = host.logged_in()
        transport.receive(command + b"\r\n")
        let_pass(host, 60)
        assert ask(transport, b"STAT\r\n") == (
            b"-ERR [SYS/TEMP] that took too long; try again later\r\n+OK 1 %d\r\n" % len(ONE)
        )

    @pytest.mark.parametrize("command", [b"LIST", b"LIST 1", b"UIDL", b"UIDL 1", b"DELE 1", b"RETR 1"])
    def test_an_error(self, command: bytes) -> None:
        """Refusal or bug, it is asked for again by the next command."""
        host, reference = Host([ONE]), Host([ONE])
        transport = host.logged_in()
        host.maildrop.on_listing = raises(refusal.SpoolUnavailable())
        assert ask(transport, command + b"\r\n").startswith(b"-ERR [SYS/TEMP]")
        host.maildrop.on_listing = raises(ValueError())
        assert ask(transport, command + b"\r\n").startswith(b"-ERR [SYS/TEMP]")
        host.maildrop.on_listing = reference.maildrop.on_listing
        assert ask(transport, command + b"\r\n") == ask(reference.logged_in(), command + b"\r\n")

    def test_gone_before_the_answer(self) -> None:
        """The session ends at once, and logs out."""
        host = Host([ONE])
        _, host.maildrop.on_listing = waits()
        transport = host.logged_in()
        transport.receive(b"DELE 1\r\nQUIT\r\n")
        transport.lose()
        assert host.maildrop.happened == ["release", "log out"]


class TestRetrieval:
    def test_a_message_up_to_a_block_leaves_in_one_write(self) -> None:
        """With its first line and its end."""
        wire = LARGE[: 256 * 1024 - 2] + b"\r\n"
        host = Host([wire])
        transport = host.logged_in()
        before = transport.writes
        assert ask(transport, b"RETR 1\r\n") == b"+OK %d octets\r\n%s.\r\n" % (len(wire), wire)
        assert transport.writes == before + 1

    def test_a_long_one_leaves_in_blocks(self) -> None:
        """Each read when the one before has been taken."""
        host = Host([LARGE])
        transport = host.logged_in()
        transport.slow_above = 200_000
        transport.receive(b"RETR 1\r\nNOOP\r\n")
        said = transport.take()
        assert len(said) < 300_000
        assert len(host.maildrop.contents[0].reads) == 1
        for _ in range(20):
            transport.client_reads()
            octets = transport.take()
            assert len(octets) < 600_000
            said += octets
        assert said == b"+OK %d octets\r\n%s.\r\n+OK done\r\n" % (len(LARGE), LARGE)

    def test_a_client_that_stops_reading_is_cut_off(self) -> None:
        """After its limit; the maildrop is free again."""
        host = Host([LARGE])
        transport = host.logged_in()
        transport.slow_above = 200_000
        transport.receive(b"DELE 1\r\nRSET\r\nRETR 1\r\nQUIT\r\n")
        let_pass(host, 300)
        assert transport.aborted
        assert host.maildrop.happened == ["release", "log out"]
        assert not host.happened(MessageRetrieved)

    def test_a_slow_client_that_goes_on_is_not(self) -> None:
        """However long it takes."""
        host = Host([LARGE])
        transport = host.logged_in()
        transport.slow_above = 200_000
        transport.receive(b"RETR 1\r\n")
        for _ in range(20):
            let_pass(host, 250)
            transport.client_reads()
        assert transport.take().endswith(b".\r\n")

    @pytest.mark.parametrize("command", [b"RETR 1", b"TOP 1 0"])
    @pytest.mark.parametrize("wire", [ONE, LARGE])
    def test_late_answers(self, command: bytes, wire: bytes) -> None:
        """Of the look-up and of every read."""
        host, reference = Host([wire]), Host([wire])
        waiting: list[Deferred[None]] = []

        async def later() -> None:
            waiting.append(Deferred())
            await waiting[-1]

        host.maildrop.on_content = host.maildrop.contents[0].on_read = later
        transport = host.logged_in()
        transport.receive(command + b"\r\nNOOP\r\n")
        for deferred in waiting:
            deferred.callback(None)
        assert len(waiting) == 1 + len(reference_reads(reference, command))
        assert transport.take() == ask(reference.logged_in(), command + b"\r\nNOOP\r\n")

    @pytest.mark.parametrize("command", [b"RETR 1", b"TOP 1 9"])
    @pytest.mark.parametrize("wire", [ONE, LARGE])
    def test_an_error_before_the_first_octet(self, command: bytes, wire: bytes) -> None:
        """It is a reply like any other, and the session goes on."""
        host = Host([wire])
        transport = host.logged_in()
        host.maildrop.on_content = raises(refusal.ContentDamaged())
        assert ask(transport, command + b"\r\n") == b"-ERR [SYS/PERM] the message is damaged\r\n"
        host.maildrop.on_content = Host().maildrop.on_content
        content = host.maildrop.contents[0]
        content.on_read = raises(refusal.ContentDamaged())
        assert ask(transport, command + b"\r\n") == b"-ERR [SYS/PERM] the message is damaged\r\n"
        content.on_read = raises(ValueError())
        assert ask(transport, command + b"\r\n").startswith(b"-ERR [SYS/TEMP] something")
        assert ask(transport, b"NOOP\r\n") == b"+OK done\r\n"
        assert not host.happened(MessageRetrieved)

    def test_an_error_after_a_long_message(self) -> None:
        """It is a reply, since no message is under way any more."""
        host = Host([LARGE])
        transport = host.logged_in()
        ask(transport, b"RETR 1\r\n")
        host.maildrop.on_content = raises(refusal.ContentDamaged())
        assert ask(transport, b"RETR 1\r\n") == b"-ERR [SYS/PERM] the message is damaged\r\n"

    def test_fewer_octets_than_announced_are_damage(self) -> None:
        """Before the first octet a reply, later the end of the connection; never a short message."""
        host = Host([ONE])
        content = host.maildrop.contents[0]
        content.wire = content.wire[:-4]
        assert ask(host.logged_in(), b"RETR 1\r\n") == b"-ERR [SYS/PERM] the message is damaged\r\n"
        host = Host([LARGE])
        content = host.maildrop.contents[0]
        content.wire = content.wire[:-4]
        transport = host.logged_in()
        transport.receive(b"RETR 1\r\n")
        assert_broken_off(host, transport)

    @pytest.mark.parametrize("error", [refusal.ContentDamaged(cause="checksum"), refusal.SpoolUnavailable(), OSError()])
    @pytest.mark.parametrize("last_read", [2, 7])
    def test_an_error_amid_a_message(self, error: Exception, last_read: int) -> None:
        """The connection is closed before anything that could be taken for its end; nothing is removed."""
        host = Host([LARGE])
        content = host.maildrop.contents[0]

        async def fails_later() -> None:
            if len(content.reads) == last_read:
                raise error

        content.on_read = fails_later
        transport = host.logged_in()
        transport.receive(b"DELE 1\r\nRSET\r\nRETR 1\r\nNOOP\r\nQUIT\r\n")
        assert_broken_off(host, transport)
        assert len(host.happened(Trouble) + host.happened(Bug)) == 1

    def test_a_read_that_never_comes_back(self) -> None:
        """A limit, and then the same."""
        host = Host([LARGE])
        content = host.maildrop.contents[0]
        never: Deferred[None] = Deferred()

        async def sticks() -> None:
            if len(content.reads) == 3:
                await never

        content.on_read = sticks
        transport = host.logged_in()
        transport.receive(b"RETR 1\r\nNOOP\r\n")
        let_pass(host, 60)
        assert_broken_off(host, transport)

    def test_gone_amid_a_message(self) -> None:
        """Reading stops, the maildrop is free, the message was not retrieved."""
        host = Host([LARGE])
        transport = host.logged_in()
        transport.slow_above = 200_000
        transport.receive(b"RETR 1\r\nQUIT\r\n")
        transport.lose(clean=False)
        assert len(host.maildrop.contents[0].reads) == 1
        assert host.maildrop.happened == ["release", "log out"]
        assert not host.happened(MessageRetrieved)
        assert not host.clock.getDelayedCalls()

    def test_many_pipelined(self) -> None:
        """A thousand replies, in order, and no listing in between."""
        host = Host([ONE, TWO])
        transport = host.logged_in()
        transport.receive(b"RETR 1\r\nRETR 2\r\n" * 500)
        for _ in range(20):
            host.clock.advance(0)
        one = b"+OK %d octets\r\n%s.\r\n" % (len(ONE), ONE)
        two = b"+OK %d octets\r\n%s.\r\n" % (len(TWO) - 1, TWO)
        assert transport.take() == (one + two) * 500


class TestTop:
    def test_of_a_long_message_reads_no_more_than_it_needs(self) -> None:
        """One block for a few lines; and the lines are right across blocks."""
        host = Host([LARGE])
        transport = host.logged_in()
        header = LARGE.index(b"\r\n\r\n") + 4
        for lines in (0, 1, 3000, 4000, 19_999, 20_000, 10**20):
            host.maildrop.contents[0].reads.clear()
            said = ask(transport, b"TOP 1 %d\r\n" % lines)
            wanted = LARGE[: header + 80 * min(lines, 20_000)]
            assert said == b"+OK top of message follows\r\n" + wanted + b".\r\n"
            reads = host.maildrop.contents[0].reads
            assert len(reads) == max(1, -(-len(wanted) // (256 * 1024)))

    def test_of_a_small_one(self) -> None:
        """Dots stay doubled."""
        transport = Host([TWO]).logged_in()
        assert ask(transport, b"TOP 1 1\r\n") == b"+OK top of message follows\r\nSubject: two\r\n\r\n..dot\r\n.\r\n"

    @pytest.mark.parametrize("wire", [b"a: b\r\n", b"\r\nbody\r\n", b"\r\n", b""])
    def test_of_what_lacks_something(self, wire: bytes) -> None:
        """No body, no header, nothing: nothing is made up."""
        transport = Host([wire]).logged_in()
        assert ask(transport, b"TOP 1 9\r\n") == b"+OK top of message follows\r\n" + wire + b".\r\n"


class TestUpdate:
    def test_late(self) -> None:
        """+OK comes when the spool has said so, not before."""
        host = Host([ONE])
        late, host.maildrop.on_update = waits()
        transport = host.logged_in()
        ask(transport, b"DELE 1\r\n")
        assert ask(transport, b"QUIT\r\n") == b""
        late.callback(None)
        assert transport.take() == b"+OK goodbye\r\n"
        assert host.maildrop.happened == [("update", (1,)), "updated", "release", "log out"]
        assert len(host.happened(MessagesDeleted)) == 1

    @pytest.mark.parametrize("error", [refusal.SpoolUnavailable(), refusal.MaildropLost(), refusal.TookTooLong()])
    def test_refused(self, error: refusal.Refusal) -> None:
        """RFC 1939 6: the client hears that they are not removed, and the maildrop is released all the same."""
        host = Host([ONE])
        host.maildrop.on_update = raises(error)
        transport = host.logged_in()
        assert ask(transport, b"DELE 1\r\nQUIT\r\n").endswith(b"-ERR [SYS/TEMP] some deleted messages not removed\r\n")
        assert transport.closing
        assert host.maildrop.happened == [("update", (1,)), "release", "log out"]
        assert not host.happened(MessagesDeleted)
        assert len(host.happened(Trouble)) == 1

    def test_a_bug(self) -> None:
        """The client hears the same, the operator what was raised."""
        host = Host([ONE])
        host.maildrop.on_update = raises(KeyError())
        transport = host.logged_in()
        assert ask(transport, b"DELE 1\r\nQUIT\r\n").endswith(b"-ERR [SYS/TEMP] some deleted messages not removed\r\n")
        assert transport.closing
        assert host.maildrop.happened[1:] == ["release", "log out"]
        assert len(host.happened(Bug)) == 1

    def test_never(self) -> None:
        """No reply on an unknown outcome: the connection ends, the update goes on and is reported when it is done."""
        host = Host([ONE])
        late, host.maildrop.on_update = waits()
        transport = host.logged_in()
        transport.receive(b"DELE 1\r\nQUIT\r\n")
        transport.take()
        let_pass(host, 225)
        assert not transport.aborted
        let_pass(host, 15)
        assert transport.aborted
        assert transport.take() == b""
        assert not late.called
        assert host.maildrop.happened == [("update", (1,))]
        late.callback(None)
        assert host.maildrop.happened == [("update", (1,)), "updated", "release", "log out"]
        assert len(host.happened(MessagesDeleted)) == 1
        assert why_it_ended(host) == ["timeout"]

    def test_the_connection_is_lost_meanwhile(self) -> None:
        """What QUIT has begun is done, whoever waits; one logout."""
        host = Host([ONE])
        late, host.maildrop.on_update = waits()
        transport = host.logged_in()
        transport.receive(b"DELE 1\r\nQUIT\r\n")
        transport.lose(clean=False)
        assert not late.called
        assert host.maildrop.happened == [("update", (1,))]
        assert not host.happened(SessionEnded)
        late.callback(None)
        assert host.maildrop.happened == [("update", (1,)), "updated", "release", "log out"]
        assert why_it_ended(host) == ["lost"]
        assert len(host.happened(MessagesDeleted)) == 1

    def test_nothing_is_answered_after_quit(self) -> None:
        """Commands behind it are nobody's."""
        host = Host([ONE])
        said = ask(host.logged_in(), b"QUIT\r\nDELE 1\r\nQUIT\r\n")
        assert said == b"+OK goodbye\r\n"
        assert host.maildrop.happened == ["release", "log out"]


class TestLongListings:
    def test_they_leave_as_the_client_takes_them(self) -> None:
        """A hundred thousand lines, a slice at a time."""
        host = Host()
        host.maildrop = drop = FakeMaildrop()
        host.login.maildrop = drop
        drop.kept.octets = range(100_000)
        drop.kept.unique_ids = [f"{number:024x}" for number in range(100_000)]
        transport = host.logged_in()
        transport.slow_above = 100_000
        transport.receive(b"UIDL\r\nNOOP\r\n")
        said = b""
        for _ in range(100):
            octets = transport.take()
            assert len(octets) < 300_000
            said += octets
            transport.client_reads()
        lines = said.split(b"\r\n")
        assert lines[100_000] == b"100000 %024x" % 99_999
        assert lines[100_001:] == [b".", b"+OK done", b""]

    def test_gone_meanwhile(self) -> None:
        """Nobody is written to."""
        host = Host()
        host.login.maildrop.kept.octets = range(100_000)
        transport = host.logged_in()
        transport.slow_above = 100_000
        transport.receive(b"LIST\r\n")
        transport.lose()
        assert host.maildrop.happened == ["release", "log out"]


class TestDraining:
    def test_an_idle_session_is_told(self) -> None:
        """At its command boundary; marks are forgotten."""
        host = Host([ONE])
        transport = host.logged_in()
        ask(transport, b"DELE 1\r\n")
        over = Deferred.fromCoroutine(host.factory.drain())
        assert transport.take().startswith(b"-ERR [SYS/TEMP]")
        transport.lose()
        assert over.called
        assert host.maildrop.happened == ["release", "log out"]
        assert why_it_ended(host) == ["draining"]

    def test_a_quit_under_way_is_waited_for(self) -> None:
        """Its client hears the outcome."""
        host = Host([ONE])
        late, host.maildrop.on_update = waits()
        transport = host.logged_in()
        ask(transport, b"DELE 1\r\nQUIT\r\n")
        over = Deferred.fromCoroutine(host.factory.drain())
        assert transport.take() == b""
        late.callback(None)
        assert transport.take() == b"+OK goodbye\r\n"
        transport.lose()
        assert over.called

    def test_a_sasl_exchange_is_not_cut_in_two(self) -> None:
        """Its reply comes first."""
        host = Host()
        transport = host.connect()
        ask(transport, b"AUTH PLAIN\r\n")
        Deferred.fromCoroutine(host.factory.drain())
        assert transport.take() == b""
        said = ask(transport, b"*\r\n")
        assert said.startswith(b"-ERR AUTH cancelled\r\n-ERR [SYS/TEMP]")

    def test_one_too_many(self) -> None:
        """Turned away with a word."""
        host = Host(limits=Limits(connections=0))
        protocol = host.factory.buildProtocol(None)
        assert protocol is not None
        transport = FakeTransport(protocol)
        assert transport.take() == b"-ERR [SYS/TEMP] too many connections; try again later\r\n"
        assert transport.closing


def reference_reads(host: Host, command: bytes) -> list[tuple[int, int]]:
    """The reads that a command makes when nothing is late."""
    ask(host.logged_in(), command + b"\r\n")
    return host.maildrop.contents[0].reads


def assert_broken_off(host: Host, transport: FakeTransport) -> None:
    said = transport.take()
    _, first, content = said.partition(b" octets\r\n")
    assert first
    assert LARGE.startswith(content)
    assert len(content) < len(LARGE)
    assert b"\r\n.\r\n" not in content
    assert transport.closing
    transport.lose()
    assert host.maildrop.happened == ["release", "log out"]
    assert not host.happened(MessageRetrieved)
    assert why_it_ended(host) == ["broken off"]

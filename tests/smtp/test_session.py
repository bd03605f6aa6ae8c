"""Sessions where time passes: answers that come late, never, wrong, or to nobody; and what is reported and let go of."""

from __future__ import annotations

from typing import Any

import pytest
from fake_delivery import Dialogue, Script
from twisted.internet.defer import Deferred

from mailhost.envelope import NULL_REVERSE_PATH, TLS, Path
from mailhost.events import Bug, MessageAccepted, MessageRefused, SessionEnded
from mailhost.limits import Limits
from mailhost.refusal import (
    LoginUnavailable,
    NoSuchMaildrop,
    Refusal,
    SpoolFull,
    SpoolUnavailable,
    TemporaryRefusal,
    Worded,
)

TLS_CREATOR: Any = object()
ANN = Path("ann", "far.example")
BOB = Path("bob", "example.test")
PLAIN = "AUTH PLAIN AGFubkBleGFtcGxlLnRlc3QAdGFwaW9jYQ=="

# A step of the delivery, what the client says before it, what starts it, and what is heard when it succeeds.
STEPS = [
    ("log_in", ["EHLO c"], "MAIL FROM:<ann@far.example>", "250 2.1.0"),
    ("transaction", ["EHLO c"], "MAIL FROM:<ann@far.example>", "250 2.1.0"),
    ("recipient", ["EHLO c", "MAIL FROM:<ann@far.example>"], "RCPT TO:<bob@example.test>", "250 2.1.5"),
    ("content", ["EHLO c", "MAIL FROM:<ann@far.example>", "RCPT TO:<bob@example.test>"], "DATA", "354 "),
    ("commit", ["EHLO c", "MAIL FROM:<ann@far.example>", "RCPT TO:<bob@example.test>", "DATA"], ".", "250 2.0.0"),
]
NAMES = [step[0] for step in STEPS]


class Waiting:
    """A dialogue whose step `name` is under way and waits."""

    def __init__(self, name: str, before: list[str], command: str) -> None:
        self.cancelled: list[object] = []
        self.answer: Deferred[Any] = Deferred(self.cancelled.append)
        script = Script()
        script.answers[name] = self.answer
        self.dialogue = Dialogue(script)
        self.dialogue.say(*before)
        assert self.dialogue.say(command) == ""


def ends(script: Script) -> list[str]:
    """How transactions and messages ended."""
    return [step for step in script.done if "abort" in step]


class TestAnswers:
    """What a session does when a part that it asks takes its time."""

    @pytest.mark.parametrize(("name", "before", "command", "heard"), STEPS, ids=NAMES)
    def test_late(self, name: str, before: list[str], command: str, heard: str) -> None:
        """Nothing is said before the answer, and what was pipelined is answered behind it."""
        waiting = Waiting(name, before, command)
        assert waiting.dialogue.say("NOOP") == ""
        waiting.dialogue.clock.advance(30)
        waiting.answer.callback(None)
        replies = waiting.dialogue.hear()
        assert replies.startswith(heard)
        if name != "content":  # behind 354 it is content
            assert replies.endswith("250 2.0.0 OK\r\n")

    @pytest.mark.parametrize(("name", "before", "command", "heard"), STEPS, ids=NAMES)
    def test_late_refusal(self, name: str, before: list[str], command: str, heard: str) -> None:
        """A refusal that comes late is worded as any other, and the session goes on."""
        waiting = Waiting(name, before, command)
        waiting.answer.errback(SpoolUnavailable())
        assert waiting.dialogue.hear().startswith("451 4.3.0 ")
        assert waiting.dialogue.say("NOOP").startswith("250 ")
        assert not waiting.dialogue.happened(Bug)

    @pytest.mark.parametrize(("name", "before", "command", "heard"), STEPS[:4], ids=NAMES[:4])
    def test_never(self, name: str, before: list[str], command: str, heard: str) -> None:
        """A look-up that never comes back is given up, the client may try again, and the session goes on."""
        waiting = Waiting(name, before, command)
        waiting.dialogue.clock.pump([10] * 9)
        assert waiting.cancelled
        assert waiting.dialogue.hear().startswith("451 4.3.0 ")
        assert waiting.dialogue.say("NOOP").startswith("250 ")

    def test_commit_never(self) -> None:
        """A commit's outcome is never guessed: it is not cancelled, and the connection is closed without a reply."""
        waiting = Waiting(*STEPS[4][:3])
        waiting.dialogue.clock.pump([10] * 23)
        assert not waiting.dialogue.transport.aborted
        waiting.dialogue.clock.pump([10] * 4)
        assert waiting.dialogue.transport.aborted
        assert waiting.dialogue.hear() == ""
        assert not waiting.cancelled
        assert not waiting.dialogue.happened(SessionEnded)
        waiting.answer.callback(None)
        assert waiting.dialogue.happened(MessageAccepted)
        assert waiting.dialogue.happened(SessionEnded)[0].messages == 1

    @pytest.mark.parametrize(("name", "before", "command", "heard"), STEPS, ids=NAMES)
    def test_bug(self, name: str, before: list[str], command: str, heard: str) -> None:
        """What is no refusal is a bug: reported, said to be temporary, and not the end of the session."""
        waiting = Waiting(name, before, command)
        error = ZeroDivisionError("of no concern to clients")
        waiting.answer.errback(error)
        assert waiting.dialogue.hear() == "451 4.3.0 Internal error; try again later\r\n"
        assert [event.failure for event in waiting.dialogue.happened(Bug)] == [error]
        waiting.dialogue.script.answers.clear()
        waiting.dialogue.say("RSET")
        assert "354" in waiting.dialogue.say("MAIL FROM:<>", "RCPT TO:<bob@example.test>", "DATA")
        assert waiting.dialogue.say(".").startswith("250 ")

    def test_bug_at_data(self) -> None:
        """A transaction whose content could not be begun is over: nothing is asked of it again."""
        waiting = Waiting(*STEPS[3][:3])
        waiting.answer.errback(ZeroDivisionError())
        assert ends(waiting.dialogue.script) == ["abort"]
        assert waiting.dialogue.say("DATA").endswith("503 5.5.1 Send MAIL first\r\n")

    @pytest.mark.parametrize(("name", "before", "command", "heard"), STEPS[:4], ids=NAMES[:4])
    def test_after_loss(self, name: str, before: list[str], command: str, heard: str) -> None:
        """When the client goes away the step is cancelled, what was open is aborted once, and the login ended once."""
        waiting = Waiting(name, before, command)
        waiting.dialogue.transport.lose()
        script = waiting.dialogue.script
        assert waiting.cancelled
        assert script.count("log_out") == (0 if name == "log_in" else 1)
        assert ends(script) == ([] if name in ("log_in", "transaction") else ["abort"])
        assert [event.why for event in waiting.dialogue.happened(SessionEnded)] == ["lost"]

    def test_commit_after_loss(self) -> None:
        """A client that goes away behind the final dot changes nothing about what is done."""
        waiting = Waiting(*STEPS[4][:3])
        waiting.dialogue.transport.lose()
        assert not waiting.cancelled
        assert waiting.dialogue.script.count("log_out") == 0
        waiting.answer.callback(None)
        assert waiting.dialogue.script.messages[0].end == "commit"
        assert [type(event) for event in waiting.dialogue.events] == [MessageAccepted, SessionEnded]
        assert waiting.dialogue.script.count("log_out") == 1

    def test_look_up_behind_a_commit(self) -> None:
        """Only the commit is beyond cancelling: what a session does behind it is cut short as ever."""
        dialogue = Dialogue()
        dialogue.to_content()
        dialogue.send(b".\r\n")
        cancelled: list[object] = []
        dialogue.script.answers["transaction"] = Deferred(cancelled.append)
        dialogue.say("MAIL FROM:<>")
        dialogue.transport.lose()
        assert cancelled

    def test_refused_commit_after_loss(self) -> None:
        """Nor does it when the message is refused."""
        waiting = Waiting(*STEPS[4][:3])
        waiting.dialogue.transport.lose()
        waiting.answer.errback(SpoolFull())
        assert [type(event) for event in waiting.dialogue.events] == [MessageRefused, SessionEnded]
        assert ends(waiting.dialogue.script) == []

    @pytest.mark.parametrize(
        ("answer", "heard"),
        [(None, "235 2.7.0 "), (LoginUnavailable(), "454 4.7.0 "), (ZeroDivisionError(), "451 4.3.0 ")],
    )
    def test_login_late(self, answer: object, heard: str) -> None:
        """AUTH's answer may take its time, and what was pipelined waits for it."""
        dialogue, waiting = login_under_way()
        assert dialogue.say("NOOP") == ""
        waiting.callback(answer)
        replies = dialogue.hear().splitlines()
        assert replies[0].startswith(heard)
        assert replies[1:] == ["250 2.0.0 OK"]

    def test_login_after_loss(self) -> None:
        """A client that goes away before the answer was never logged in."""
        dialogue, waiting = login_under_way()
        dialogue.transport.lose()
        assert waiting.called
        assert dialogue.script.count("log_out") == 0
        assert dialogue.happened(SessionEnded)[0].client.account is None

    def test_login_never(self) -> None:
        """AUTH that takes too long says nothing about the password."""
        dialogue, _ = login_under_way()
        dialogue.clock.pump([10] * 9)
        assert dialogue.hear().startswith("454 4.7.0 ")
        assert dialogue.say("NOOP").startswith("250 ")


def login_under_way() -> tuple[Dialogue, Deferred[Any]]:
    """A dialogue whose AUTH waits for an answer."""
    waiting: Deferred[Any] = Deferred()
    script = Script()
    script.answers["log_in"] = waiting
    dialogue = Dialogue(script, auth=True, plaintext_login=True)
    dialogue.say("EHLO c")
    assert dialogue.say(PLAIN) == ""
    return dialogue, waiting


class TestTransaction:
    @pytest.mark.parametrize("way", ["RSET", "EHLO c", "HELO c", "STARTTLS", "QUIT", ""])
    @pytest.mark.parametrize("recipients", [0, 1])
    def test_ways_out(self, way: str, recipients: int) -> None:
        """Whichever way a transaction is left, the delivery hears it once."""
        dialogue = Dialogue(tls=TLS_CREATOR)
        dialogue.say("EHLO c", "MAIL FROM:<>", *["RCPT TO:<bob@example.test>"] * recipients)
        if way:
            dialogue.say(way)
        if way not in ("", "QUIT"):
            assert ends(dialogue.script) == ["abort"]
        dialogue.transport.lose()
        assert ends(dialogue.script) == ["abort"]


class TestContent:
    """Between 354 and the end of data."""

    def test_slow_spool_slows_the_client(self) -> None:
        """While the spool has no room, no more is read than a bounded buffer holds; then all arrives in order."""
        dialogue = Dialogue(limits=Limits(unread_octets=1000))
        dialogue.to_content()
        room: Deferred[None] = Deferred()
        dialogue.script.answers["write"] = room
        for _ in range(3):
            dialogue.send(b"x" * 998 + b"\r\n")
        assert not dialogue.transport.reading
        assert dialogue.script.messages[0].content == b"x" * 998
        del dialogue.script.answers["write"]
        room.callback(None)
        assert dialogue.transport.reading
        dialogue.send(b".\r\n")
        assert dialogue.script.messages[0].content == (b"x" * 998 + b"\r\n") * 3
        assert dialogue.script.messages[0].end == "commit"

    def test_last_block_waits_for_room(self) -> None:
        """The commit begins when what was written has its room."""
        dialogue = Dialogue()
        dialogue.to_content()
        room: Deferred[None] = Deferred()
        dialogue.script.answers["write"] = room
        assert dialogue.send(b"x\r\n.\r\n") == ""
        assert dialogue.script.count("commit") == 0
        room.callback(None)
        assert dialogue.hear().startswith("250 2.0.0 ")

    def test_room_that_never_comes(self) -> None:
        """A spool that is stuck: what was staged is let go of, and the client hears it at the end of data."""
        dialogue = Dialogue()
        dialogue.to_content()
        dialogue.script.answers["write"] = Deferred()
        dialogue.send(b"x\r\ny")
        dialogue.clock.pump([10] * 27)
        assert dialogue.script.messages[0].end == "abort"
        assert dialogue.hear() == ""
        assert dialogue.send(b"z\r\n.\r\nNOOP\r\n").startswith("451 4.3.0 ")
        assert not dialogue.transport.closing

    def test_write_that_raises(self) -> None:
        """A bug in the midst of content: the reply cannot wait for the end, so the connection closes with it."""
        dialogue = Dialogue()
        dialogue.to_content()
        dialogue.script.answers["write"] = ZeroDivisionError()
        assert dialogue.send(b"x\r\n").startswith("421 4.3.0 ")
        assert dialogue.transport.closing
        assert dialogue.script.messages[0].end == "abort"
        assert len(dialogue.happened(Bug)) == 1
        dialogue.transport.lose()
        assert dialogue.happened(SessionEnded)[0].why == "bug"

    def test_lost_in_content(self) -> None:
        """A client that goes away before the end of data has sent nothing."""
        dialogue = Dialogue()
        dialogue.to_content()
        dialogue.send(b"x\r\n.\r")
        dialogue.transport.lose()
        assert dialogue.script.messages[0].end == "abort"
        assert ends(dialogue.script) == ["staged.abort"]
        assert not dialogue.happened(MessageAccepted)

    def test_lost_while_waiting_for_room(self) -> None:
        """The same while a block waits."""
        dialogue = Dialogue()
        dialogue.to_content()
        dialogue.script.answers["write"] = Deferred()
        dialogue.send(b"x\r\n")
        dialogue.transport.lose()
        assert dialogue.script.messages[0].end == "abort"

    def test_staged_that_comes_too_late(self) -> None:
        """A message staged for a client that has gone is let go of."""
        script = Script()
        staging: Deferred[Any] = Deferred(lambda deferred: deferred.callback(None))
        script.answers["content"] = staging
        dialogue = Dialogue(script)
        dialogue.to_rcpt()
        dialogue.say("DATA")
        dialogue.transport.lose()
        assert script.messages[0].end == "abort"

    def test_bare_line_end_is_let_go_of_at_once(self) -> None:
        """Not at the end of data, which may never come; and it is reported once."""
        dialogue = Dialogue()
        dialogue.to_content()
        dialogue.send(b"first\n.\nsecond\r\n")
        assert dialogue.script.messages[0].end == "abort"
        assert not dialogue.transport.closing
        dialogue.clock.advance(30)
        assert dialogue.hear().startswith("554 5.6.0 ")
        dialogue.transport.lose()
        (refused,) = dialogue.happened(MessageRefused)
        assert (refused.stage, refused.reverse_path) == ("content", ANN)
        assert dialogue.happened(SessionEnded)[0].why == "timeout"

    def test_progress_is_never_cut(self) -> None:
        """However long a message takes, a client that sends something every two minutes is listened to."""
        dialogue = Dialogue()
        dialogue.to_content()
        for _ in range(30):
            dialogue.clock.pump([10] * 12)
            dialogue.send(b"x\r\n")
        assert dialogue.send(b".\r\n").startswith("250 ")

    def test_some_got_it(self) -> None:
        """A delivery that reached some: one reply cannot say it, so all of it is temporary if any failure is."""
        for refused, code in [
            ({0: NoSuchMaildrop(), 1: SpoolFull()}, "452"),
            ({0: NoSuchMaildrop(), 1: ZeroDivisionError()}, "451"),
            ({0: NoSuchMaildrop()}, "550"),
        ]:
            dialogue = Dialogue()
            dialogue.script.refused = refused
            dialogue.to_content()
            assert dialogue.send(b".\r\n").startswith(code)
            assert not dialogue.happened(MessageAccepted)

    def test_large_content_in_blocks(self) -> None:
        """Content arrives at the spool block by block, not at the end."""
        dialogue = Dialogue()
        dialogue.to_content()
        for number in range(1, 20):
            dialogue.send(b"x" * 998 + b"\r\n")
            assert len(dialogue.script.messages[0].content) >= number * 1000 - 4


class TestValues:
    """What a session hands on."""

    def test_envelope(self) -> None:
        """Client, paths and parameters arrive at the delivery as they were sent."""
        dialogue = Dialogue()
        dialogue.say("EHLO client.example", "MAIL FROM:<> SIZE=12 BODY=8BITMIME")
        dialogue.say("RCPT TO:<bob@example.test>", 'RCPT TO:<"B C"@example.test>')
        dialogue.say("RCPT TO:<Postmaster>", "DATA")
        taken = dialogue.script.messages[0].transaction
        assert taken.reverse_path == NULL_REVERSE_PATH
        assert taken.parameters == {"SIZE": "12", "BODY": "8BITMIME"}
        assert taken.forward_paths == [BOB, Path("B C", "example.test"), Path("Postmaster", "")]
        assert (taken.client.helo, taken.client.extended, taken.client.host) == ("client.example", True, "192.0.2.7")
        assert (taken.client.listener, taken.client.protocol) == ("mx", "smtp")

    def test_client_after_helo(self) -> None:
        """HELO is not EHLO: the Received field's protocol depends on it (RFC 3848)."""
        dialogue = Dialogue()
        dialogue.say("EHLO a.example", "HELO b.example", "MAIL FROM:<>", "RCPT TO:<bob@example.test>", "DATA")
        client = dialogue.script.messages[0].transaction.client
        assert (client.helo, client.extended) == ("b.example", False)

    def test_client_after_login(self) -> None:
        """The delivery is the user's own, and knows the account."""
        dialogue = Dialogue(auth=True, plaintext_login=True, protocol="submission")
        dialogue.say("EHLO c", PLAIN, "MAIL FROM:<>", "RCPT TO:<bob@example.test>", "DATA")
        client = dialogue.script.messages[0].transaction.client
        assert (client.account, client.protocol) == (b"ann@example.test", "submission")
        assert dialogue.script.count("log_in") == 1

    def test_one_anonymous_login(self) -> None:
        """One login serves a session, however many messages, and is ended with it."""
        dialogue = Dialogue()
        for _ in range(3):
            dialogue.to_content()
            dialogue.send(b".\r\n")
        assert dialogue.script.count("log_in") == 1
        assert dialogue.script.minds[0].helo == "client.example"
        dialogue.transport.lose()
        assert dialogue.script.count("log_out") == 1

    def test_accepted(self) -> None:
        """One event for a message, with what it was and how long it took from MAIL on."""
        dialogue = Dialogue()
        dialogue.to_rcpt()
        dialogue.clock.advance(2)
        dialogue.say("RCPT TO:<cid@example.test>", "DATA", "..", ".")
        (accepted,) = dialogue.happened(MessageAccepted)
        assert accepted[1:] == ("id1", ANN, (BOB, Path("cid", "example.test")), 3, 2.0)

    def test_refused(self) -> None:
        """One event for each thing refused: where, who, what was said, and the cause that was not."""
        dialogue = Dialogue()
        dialogue.to_rcpt()
        dialogue.say("RCPT TO:<nobody@example.test>")
        dialogue.script.answers["commit"] = SpoolFull(cause="disk")
        dialogue.say("DATA", ".", "MAIL FROM:<ann@far.example> SIZE=999999999999", "RCPT TO:<a@b>", "NOOP")
        told = [event[1:] for event in dialogue.happened(MessageRefused)]
        assert told == [
            ("RCPT", ANN, Path("nobody", "example.test"), "550 5.1.1 No such mailbox here", None),
            ("content", ANN, None, "452 4.3.1 No room for mail now; try again later", "disk"),
            ("MAIL", None, None, "552 5.3.4 Message too large: the limit is 52428800 octets", None),
        ]

    def test_ended(self) -> None:
        """One event for a session, with its sums."""
        dialogue = Dialogue()
        dialogue.to_content()
        dialogue.clock.advance(3)
        dialogue.send(b".\r\n")
        dialogue.say("QUIT")
        dialogue.transport.lose()
        (ended,) = dialogue.happened(SessionEnded)
        assert ended[1:4] == (3.0, "quit", 1)
        assert (
            ended.octets_in
            == len("EHLO client.exampleMAIL FROM:<ann@far.example>RCPT TO:<bob@example.test>DATA.QUIT") + 12
        )
        assert ended.octets_out > 200

    @pytest.mark.parametrize(
        ("said", "why"),
        [
            (b"EHLO x\r\nQUIT\r\n", "quit"),
            (b"NOOP\n", "bare line feed"),
            (b"FROB\r\n" * 20, "errors"),
            (b"", "lost"),
        ],
    )
    def test_why_it_ended(self, said: bytes, why: str) -> None:
        """The log says which of the ways to end it was."""
        dialogue = Dialogue()
        dialogue.send(said)
        dialogue.transport.lose()
        assert [event.why for event in dialogue.happened(SessionEnded)] == [why]

    def test_hook_that_closes(self) -> None:
        """A 421 by somebody who has the words is the end of the session."""
        dialogue = Dialogue()
        dialogue.script.answers["transaction"] = Worded(421, "4.7.0", "Enough for today")
        dialogue.say("EHLO c")
        assert dialogue.say("MAIL FROM:<>", "NOOP") == "421 4.7.0 Enough for today\r\n"
        assert dialogue.transport.closing
        dialogue.transport.lose()
        assert dialogue.happened(SessionEnded)[0].why == "refused"

    def test_every_refusal_names_the_session(self) -> None:
        """By the name that the log has it under; whatever it is that refuses."""
        dialogue = Dialogue()
        dialogue.transport.receive(b"FROB\r\nEHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<nobody@example.test>\r\n")
        dialogue.clock.advance(400)
        refusals = [line for line in dialogue.transport.take().split(b"\r\n") if line[:1] in (b"4", b"5")]
        (refused,) = dialogue.happened(MessageRefused)
        name = refused.client.session.encode()
        assert [line.partition(b" (")[0] for line in refusals] == [
            b"500 5.5.1 Unknown command",
            b"550 5.1.1 No such mailbox here",
            b"421 4.4.2 mx.example.test waited too long for you",
        ]
        assert all(line.endswith(b" (session " + name + b")") for line in refusals)
        assert refused.reply == "550 5.1.1 No such mailbox here"


class TestTLS:
    def test_injected(self) -> None:
        """Octets behind STARTTLS are never taken for something said under TLS (CVE-2011-0411)."""
        dialogue = Dialogue(tls=TLS_CREATOR)
        dialogue.say("EHLO c")
        assert dialogue.say("STARTTLS", "MAIL FROM:<mallory@far.example>").startswith("554 5.5.0 ")
        assert dialogue.transport.closing
        assert dialogue.transport.tls is None
        dialogue.transport.lose()
        assert dialogue.happened(SessionEnded)[0].why == "injected"
        assert dialogue.script.done == []

    def test_everything_is_forgotten(self) -> None:
        """EHLO, transaction and login go; TLS is known to what comes after."""
        dialogue = Dialogue(tls=TLS_CREATOR)
        dialogue.to_rcpt()
        dialogue.say("STARTTLS")
        assert dialogue.script.done[-2:] == ["abort", "log_out"]
        dialogue.transport.finish_handshake()
        dialogue.to_content()
        client = dialogue.script.messages[0].transaction.client
        assert client.tls == TLS("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
        assert dialogue.script.count("log_in") == 2
        assert dialogue.script.minds[1].tls == client.tls

    def test_implicit(self) -> None:
        """The greeting waits for the handshake; STARTTLS is neither listed nor done; AUTH is safe."""
        dialogue = Dialogue(implicit_tls=True, auth=True)
        assert dialogue.hear() == ""
        dialogue.transport.finish_handshake()
        assert dialogue.hear().startswith("220 ")
        listed = dialogue.say("EHLO c")
        assert "AUTH PLAIN LOGIN" in listed
        assert "STARTTLS" not in listed
        assert dialogue.say("STARTTLS").startswith("503 ")
        assert dialogue.say(PLAIN).startswith("235 ")

    def test_login_ends_once(self) -> None:
        """A login that STARTTLS has forgotten is not ended again with the session."""
        dialogue = Dialogue(tls=TLS_CREATOR, auth=True, plaintext_login=True)
        dialogue.say("EHLO c", PLAIN)
        dialogue.say("STARTTLS")
        dialogue.transport.lose()
        assert dialogue.script.count("log_out") == 1


class TestLimits:
    def test_drain(self) -> None:
        """A service that ends says so between commands, and aborts what was open; a commit is waited for."""
        idle, committing = Dialogue(), Waiting(*STEPS[4][:3]).dialogue
        idle.to_rcpt()
        for dialogue in (idle, committing):
            Deferred.fromCoroutine(dialogue.factory.drain())
        assert idle.hear().startswith("421 4.3.2 mx.example.test ")
        assert idle.transport.closing
        idle.transport.lose()
        assert ends(idle.script) == ["abort"]
        assert idle.happened(SessionEnded)[0].why == "draining"
        assert committing.hear() == ""
        committing.script.answers["commit"].callback(None)
        heard = committing.hear()
        assert heard.startswith("250 2.0.0 ")
        assert "\r\n421 4.3.2 " in heard

    def test_drain_waits_for_content(self) -> None:
        """A message on its way in may end."""
        dialogue = Dialogue()
        dialogue.to_content()
        dialogue.send(b"x\r\n")
        Deferred.fromCoroutine(dialogue.factory.drain())
        assert not dialogue.transport.closing
        assert dialogue.send(b".\r\n").startswith("250 2.0.0 ")
        assert dialogue.transport.closing

    def test_drain_waits_for_an_exchange(self) -> None:
        """A client in the midst of AUTH gets its answer first."""
        dialogue = Dialogue(auth=True, plaintext_login=True)
        dialogue.say("EHLO c", "AUTH PLAIN")
        Deferred.fromCoroutine(dialogue.factory.drain())
        assert not dialogue.transport.closing
        assert dialogue.say("*").startswith("501 ")
        assert dialogue.transport.closing

    def test_too_many_connections(self) -> None:
        """One connection too many hears why and is closed."""
        dialogue = Dialogue(limits=Limits(connections=1))
        assert dialogue.factory.too_many() == b"421 4.7.0 mx.example.test has too many connections; try again later\r\n"

    def test_refused_recipients_count(self) -> None:
        """Who tries names gets so many tries for a transaction, found or not."""
        dialogue = Dialogue(limits=Limits(recipients=3))
        dialogue.say("EHLO c", "MAIL FROM:<>")
        heard = dialogue.say(*["RCPT TO:<nobody@example.test>"] * 4).splitlines()
        assert [line[:9] for line in heard] == ["550 5.1.1"] * 3 + ["452 4.5.3"]
        assert dialogue.script.count("recipient") == 3
        assert dialogue.happened(MessageRefused)[-1].forward_path == Path("nobody", "example.test")
        assert dialogue.say("DATA").startswith("451 4.5.1 ")

    def test_errors_are_the_sessions(self) -> None:
        """A message that was accepted forgives nothing."""
        dialogue = Dialogue(limits=Limits(errors=3))
        for _ in range(2):
            dialogue.say("FROB")
            dialogue.to_content()
            dialogue.send(b".\r\n")
        assert dialogue.say("FROB").startswith("421 4.7.0 ")


def test_refusals_of_content_are_temporary_or_not() -> None:
    """What a refusal says about itself is what the client hears."""

    class Mine(Refusal):
        pass

    for why, code in [(Mine(), "554"), (TemporaryRefusal(), "451")]:
        dialogue = Dialogue()
        dialogue.to_rcpt()
        dialogue.script.answers["content"] = why
        assert dialogue.say("DATA").startswith(code)
        assert ends(dialogue.script) == ["abort"]

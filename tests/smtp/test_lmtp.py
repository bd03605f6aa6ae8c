"""LMTP's own: as many replies as forward-paths, whatever became of the message, and what the log hears of it."""

from __future__ import annotations

from fake_delivery import Dialogue, Script
from twisted.internet.defer import Deferred

from mailhost.envelope import Path
from mailhost.events import Bug, MessageAccepted, MessageRefused, SessionEnded
from mailhost.limits import Limits
from mailhost.refusal import MaildropFull, NoSuchMaildrop, SpoolFull, Worded
from mailhost.smtp.factory import LMTPFactory

BOB, CID, DAN = (Path(name, "example.test") for name in ("bob", "cid", "dan"))


def in_content(script: Script | None = None, **limits: int) -> Dialogue:
    """Three forward-paths, and one that was refused among them, as far as 354."""
    dialogue = Dialogue(script, Limits(**limits), LMTPFactory)
    dialogue.say("LHLO front.example", "MAIL FROM:<ann@far.example>")
    for name in ("bob", "nobody", "cid", "dan"):
        dialogue.say(f"RCPT TO:<{name}@example.test>")
    assert "354" in dialogue.say("DATA")
    dialogue.events.clear()
    return dialogue


def codes(heard: str) -> list[str]:
    return [line[:3] for line in heard.splitlines()]


def test_protocol() -> None:
    """The delivery learns that it was LMTP, from LHLO's name on."""
    dialogue = in_content()
    (message,) = dialogue.script.messages
    client = message.transaction.client
    assert (client.protocol, client.helo, client.extended) == ("lmtp", "front.example", True)


def test_accepted() -> None:
    """One event for all."""
    dialogue = in_content()
    assert codes(dialogue.say("x", ".")) == ["250"] * 3
    (accepted,) = dialogue.events
    assert accepted.forward_paths == (BOB, CID, DAN)


def test_some_refused() -> None:
    """Those that have it are in one event, each that has not in one of its own with its cause."""
    dialogue = in_content()
    dialogue.script.refused = {0: MaildropFull(cause="quota"), 2: ZeroDivisionError("of no concern to clients")}
    heard = dialogue.say("x", ".")
    assert heard.splitlines() == [
        "452 4.2.2 Mailbox full",
        "250 2.0.0 Message accepted, id id1",
        "451 4.3.0 Not now; try again later",
    ]
    (accepted,) = dialogue.happened(MessageAccepted)
    assert accepted.forward_paths == (CID,)
    full, failed = dialogue.happened(MessageRefused)
    assert (full.forward_path, full.reply, full.cause) == (BOB, "452 4.2.2 Mailbox full", "quota")
    assert (failed.forward_path, type(failed.cause)) == (DAN, ZeroDivisionError)
    dialogue.transport.lose()
    assert dialogue.happened(SessionEnded)[0].messages == 1


def test_all_refused() -> None:
    """Then nothing was accepted."""
    dialogue = in_content()
    dialogue.script.refused = {place: NoSuchMaildrop() for place in range(3)}
    assert codes(dialogue.say("x", ".")) == ["550"] * 3
    assert not dialogue.happened(MessageAccepted)
    assert len(dialogue.happened(MessageRefused)) == 3


def test_one_that_closes() -> None:
    """A 421 for one forward-path closes the connection, behind the replies for all of them."""
    dialogue = in_content()
    dialogue.script.refused = {0: Worded(421, "4.7.0", "Enough")}
    assert codes(dialogue.say("x", ".")) == ["421", "250", "250"]
    assert dialogue.transport.closing


def test_refused_at_the_commit() -> None:
    """One refusal of the spool's is said to each, and is one event."""
    dialogue = in_content()
    dialogue.script.answers["commit"] = SpoolFull()
    assert codes(dialogue.say("x", ".")) == ["452"] * 3
    assert len(dialogue.happened(MessageRefused)) == 1


def test_bug_at_the_commit() -> None:
    """A client that waits for three replies gets them, and the session goes on in step."""
    dialogue = in_content()
    answer: Deferred[None] = Deferred()
    dialogue.script.answers["commit"] = answer
    assert dialogue.say("x", ".", "NOOP") == ""
    answer.errback(ZeroDivisionError())
    assert codes(dialogue.hear()) == ["451", "451", "451", "250"]
    assert len(dialogue.happened(Bug)) == 1


def test_bug_in_content() -> None:
    """Before its end nobody waits for several replies: one 421, and the message is aborted."""
    dialogue = in_content()
    dialogue.script.answers["write"] = ZeroDivisionError()
    assert codes(dialogue.say("x", "y")) == ["421"]
    assert dialogue.script.messages[0].end == "abort"
    assert dialogue.transport.closing


def test_lost_at_the_commit() -> None:
    """A client that goes away behind the final dot changes nothing about what is done."""
    dialogue = in_content()
    answer: Deferred[None] = Deferred()
    dialogue.script.answers["commit"] = answer
    dialogue.say("x", ".")
    dialogue.transport.lose()
    answer.callback(None)
    assert [type(event) for event in dialogue.events] == [MessageAccepted, SessionEnded]


def test_silence_in_content() -> None:
    """A client that says nothing more hears one 421."""
    dialogue = in_content(content_seconds=20)
    dialogue.say("x")
    dialogue.clock.pump([15, 15])
    assert codes(dialogue.hear()) == ["421"]


def test_too_many_connections() -> None:
    """LMTP's clients are turned away as SMTP's are."""
    dialogue = Dialogue(None, Limits(connections=1), LMTPFactory)
    assert dialogue.factory.too_many().startswith(b"421 ")

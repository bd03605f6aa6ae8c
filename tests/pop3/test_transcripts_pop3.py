"""The dialogues of `tests/transcripts/pop3`, each played in three ways."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes_pop3 import TLS_CREATOR, Host, raises
from zope.interface import alsoProvides

from mailhost import refusal
from mailhost.interfaces import IVisit
from mailhost.limits import Offered, Terms
from mailhost.testing import transcript
from mailhost.testing.transcript import Stage, Transcript

FOLDER = Path(__file__).parent.parent / "transcripts" / "pop3"

MESSAGES = [
    b"From: ann@example.test\r\nTo: bob@example.test\r\nSubject: one\r\n\r\n"
    b"A line.\r\n..\r\n..a line that began with a dot\r\nThe end.\r\n",
    b"Subject: two\r\n\r\nFour lines:\r\nsecond\r\nthird\r\nfourth\r\n\r\nlast after an empty one\r\n",
    b"Subject: three\r\n\r\nno end: no\r\n",
]


def build(settings: frozenset[str]) -> Stage:
    """A host as `-- with` says."""
    known = {"stls", "no-plaintext", "in-use", "accounts-away", "empty", "update-fails", "damaged", "terms", "too-soon"}
    assert settings <= known, settings - known
    host = Host(
        [] if "empty" in settings else MESSAGES,
        tls=TLS_CREATOR if "stls" in settings else None,
        plaintext_login="no-plaintext" not in settings,
        offered=(lambda: Offered(Terms(900, 30), delay_varies=True)) if "terms" in settings else Offered,
    )
    if "terms" in settings:
        alsoProvides(host.maildrop, IVisit)
        host.maildrop.terms = Terms(60, None)  # type: ignore[attr-defined]
    if "too-soon" in settings:
        host.login.on_log_in = raises(refusal.LoginTooSoon())
    if "in-use" in settings:
        host.login.on_log_in = raises(refusal.MaildropInUse())
    if "accounts-away" in settings:
        host.login.on_log_in = raises(refusal.LoginUnavailable(cause="no route to directory"))
    if "update-fails" in settings:
        host.maildrop.on_update = raises(refusal.SpoolUnavailable())
    if "damaged" in settings:
        host.maildrop.on_content = raises(refusal.ContentDamaged())
    protocol = host.factory.buildProtocol(None)
    assert protocol is not None
    return Stage(protocol, host.clock, host.events)


DIALOGUES = transcript.find(FOLDER)


@pytest.mark.parametrize("way", transcript.WAYS)
@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue.path.stem)
def test_dialogue(dialogue: Transcript, way: str) -> None:
    """What the file says, in each of three ways to cut what the client sends."""
    dialogue.play(build, way, replies="pop3")


def test_there_are_dialogues() -> None:
    """The folder was found."""
    assert len(DIALOGUES) >= 30

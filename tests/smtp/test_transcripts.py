"""Dialogues of SMTP as data, each played in three ways: see `mailhost/testing/transcript.py` for how they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_delivery import FakeLogin, Script
from twisted.internet.task import Clock

from mailhost import refusal
from mailhost.limits import Limits
from mailhost.smtp.factory import LMTPFactory, SMTPFactory
from mailhost.testing.transcript import WAYS, Stage, Transcript, find

FOLDER = Path(__file__).parent.parent / "transcripts" / "smtp"
TRANSCRIPTS = find(FOLDER)


def build(settings: frozenset[str]) -> Stage:
    """
    A listener with STARTTLS and no login.

    Words of `-- with`: `submission` demands a login, `plaintext` takes it without TLS, `implicit` is TLS from the first octet, `no-tls`
    has none, `lmtp` speaks that, `LIMIT=number` is a field of Limits, `STEP=Refusal` makes a step of the delivery fail, and
    `refused-PLACE=Refusal` lets all but one forward-path, counted from 0, have the message.
    """
    script, limits = Script(), {}
    for name, _, value in (word.partition("=") for word in settings if "=" in word):
        if value.isdigit():
            limits[name] = int(value)
        elif name.startswith("refused-"):
            script.refused[int(name.removeprefix("refused-"))] = getattr(refusal, value)()
        else:
            script.answers[name] = getattr(refusal, value)()
    clock, events = Clock(), []
    make, protocol_name = (LMTPFactory, "lmtp") if "lmtp" in settings else (SMTPFactory, "smtp")
    factory = make(
        login=FakeLogin(script),
        hostname="mx.example.test",
        clock=clock,
        limits=Limits(**limits),
        observer=events.append,
        protocol="submission" if "submission" in settings else protocol_name,
        tls=None if settings & {"implicit", "no-tls"} else object(),
        implicit_tls="implicit" in settings,
        auth="submission" in settings,
        plaintext_login="plaintext" in settings,
    )
    protocol = factory.buildProtocol(None)
    assert protocol is not None
    return Stage(protocol, clock, events)


def test_transcripts_are_found() -> None:
    """A folder that moved would otherwise be a test that passes."""
    assert len(TRANSCRIPTS) > 60


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.path.stem)
def test_transcript(transcript: Transcript, way: str) -> None:
    """The dialogue goes as the file says, however its octets arrive."""
    transcript.play(build, way, replies="smtp")

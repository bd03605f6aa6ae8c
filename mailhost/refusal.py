"""
What can be wrong with a request, without a word of how a protocol says it.

A `Refusal` is an answer, not a bug: whoever raises one has left everything as it was.  Each protocol's `replies.py` holds the one
table from refusal to reply.  `cause` is for the log; clients never see it.  Anything else that is raised is a bug: logged with its
traceback, and answered as a temporary failure.

Refusals are temporary whenever trying again could help, so that no full disk and no checker that is away bounces mail.
"""

from __future__ import annotations


class Refusal(Exception):
    """The base of all refusals."""

    temporary = False

    def __init__(self, detail: str = "", *, cause: object = None) -> None:
        """
        @param detail: what a client may be told beside the usual text: one line of ASCII, or nothing.
        @param cause: what the operator should know: an exception or a text; it goes to the log only.
        """
        super().__init__(detail)
        self.detail = detail
        self.cause = cause


class TemporaryRefusal(Refusal):
    """Trying again later can help."""

    temporary = True


# -- who lives here, who may send


class NoSuchMaildrop(Refusal):
    """The domain is ours and nobody of that name lives there."""


class RelayDenied(Refusal):
    """The forward-path is somebody else's, and we do not carry mail there for this client."""


class MaildropFull(TemporaryRefusal):
    """A quota would be passed.  An operator may choose that this is permanent."""


class SenderNotAllowed(Refusal):
    """The account may not use this reverse-path."""


class Loop(Refusal):
    """The message has passed too many hosts, or this one before."""


# -- sizes and numbers


class MessageTooLarge(Refusal):
    """More octets than the listener takes."""


class TooManyForwardPaths(TemporaryRefusal):
    """More recipients than one transaction takes (RFC 5321 4.5.3.1.10); the others are taken in another one."""


class NoSuchMessage(Refusal):
    """No message has this number, or it is marked as deleted in this session."""


# -- the spool


class SpoolUnavailable(TemporaryRefusal):
    """The spool cannot take or give anything now: starting, stopping, or its disk has failed."""


class SpoolFull(TemporaryRefusal):
    """No room: on the disk, or above the floor that is kept free."""


class MaildropInUse(TemporaryRefusal):
    """Another session has the maildrop (RFC 1939 4, RFC 2449 8.1.1)."""


class MaildropLost(TemporaryRefusal):
    """The exclusive hold on the maildrop was lost; nothing was changed."""


class ContentDamaged(TemporaryRefusal):
    """What is stored is not what was stored; it is never sent as if it were."""


# -- logging in


class LoginFailed(Refusal):
    """Unknown account or wrong password: nobody is told which."""


class LoginUnsupported(Refusal):
    """No checker takes credentials of this kind."""


class LoginUnavailable(TemporaryRefusal):
    """The checker or the realm could not answer; the password may well be right."""


class LoginTooSoon(TemporaryRefusal):
    """Right credentials, but the account's last login is less than its login delay ago (RFC 2449 6.5)."""


class LoginRequired(Refusal):
    """Nobody is served here who has not logged in."""


class LoginForbidden(Refusal):
    """Right credentials, but this account may not use this service."""


# -- time


class TookTooLong(TemporaryRefusal):
    """A step did not end within its limit; it was cancelled."""


class Worded(Refusal):
    """
    A refusal by somebody who has the reply's very words: a policy hook, or a foreign `IMessageDelivery`.

    Protocols that do not speak SMTP use `detail` and `temporary` only.
    """

    def __init__(self, code: int, status: str, text: str, *, cause: object = None) -> None:
        """
        @param code: the SMTP reply code, 400 to 599.
        @param status: the enhanced status code (RFC 3463), or empty.
        @param text: the reply's text, lines divided by LF.
        """
        super().__init__(text, cause=cause)
        self.code = code
        self.status = status
        self.temporary = code < 500

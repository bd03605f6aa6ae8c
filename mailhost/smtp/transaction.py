"""One mail transaction, from MAIL to the end of data (RFC 5321 3.3): what a session has of it, and RSET drops."""

from __future__ import annotations

from mailhost.envelope import Path
from mailhost.interfaces import ITransaction
from mailhost.refusal import Refusal
from mailhost.smtp import replies
from mailhost.smtp.content import Content


class Transaction:
    """Ended by `abort()`, or by the end of its content's staged message."""

    __slots__ = ("asked", "content", "forward_paths", "reverse_path", "since", "taken", "without_forward_paths")

    def __init__(self, taken: ITransaction, reverse_path: Path, since: float) -> None:
        """
        @param taken: the delivery's half of it.
        @param since: when MAIL came, by the listener's clock.
        """
        self.taken = taken
        self.reverse_path = reverse_path
        self.since = since
        self.forward_paths: list[Path] = []
        self.asked = 0
        """Forward-paths that were looked up, refused ones among them."""
        self.without_forward_paths = replies.RCPT_FIRST
        """What DATA hears while none was taken."""
        self.content: Content | None = None
        """Set from 354 on."""

    def refused(self, why: Refusal) -> None:
        """A forward-path was."""
        if why.temporary:
            self.without_forward_paths = replies.NO_FORWARD_PATHS_NOW
        elif self.without_forward_paths is replies.RCPT_FIRST:
            self.without_forward_paths = replies.NO_FORWARD_PATHS

    def abort(self) -> None:
        if self.content is None:
            self.taken.abort()
        else:
            self.content.abort()

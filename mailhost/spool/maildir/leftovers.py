"""What programs that died left in a Maildir's tmp/: nobody writes there for longer than 36 hours, says the Maildir specification."""

from __future__ import annotations

import os

from mailhost.spool.files import Files

_OLD_NANOSECONDS = 36 * 3600 * 1_000_000_000


def remove_leftovers_in_tmp(files: Files, path: str, now: int) -> None:
    """
    Never raises: whoever collects mail need not be able to do this.

    @param path: of the Maildir.
    @param now: nanoseconds since 1970.
    """
    tmp = os.path.join(path, "tmp")
    try:
        for name in files.names(tmp):
            left = os.path.join(tmp, name)
            if now - files.modified(left) > _OLD_NANOSECONDS:
                files.unlink(left)
    except OSError:
        pass

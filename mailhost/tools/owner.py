"""
Whose files these are.  All files of a spool belong to one user, and nothing may be left in it that the service cannot open.
"""

from __future__ import annotations

import codecs
import os
import pwd

from mailhost.tools.main import Failed


def owner_of(path: str) -> tuple[int, int]:
    """User and group of a path, or of the nearest directory above it that is there."""
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    found = os.stat(path)
    return found.st_uid, found.st_gid


def become_owner(path: str) -> None:
    """
    Go on as the user to whom a spool belongs.

    @raise Failed: we are somebody else, and not root who could.
    """
    user, group = owner_of(path)
    if user == os.geteuid():
        return
    if os.geteuid() != 0:
        raise Failed(f"{path} belongs to {_name(user)}; run this as {_name(user)} or as root")
    codecs.lookup(
        "ascii"
    )  # Python looks for codecs when they are wanted, and its library may be out of that user's reach
    if _known(user):
        os.initgroups(_name(user), group)
    else:
        os.setgroups([])
    os.setgid(group)
    os.setuid(user)


def _known(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def _name(user: int) -> str:
    return pwd.getpwuid(user).pw_name if _known(user) else str(user)

"""Taking a directory apart that nobody uses any more."""

from __future__ import annotations

import os

from mailhost.spool.files import Files


def remove_tree(files: Files, path: str) -> None:
    """With all that is below.  Again after it was cut off, it goes on."""
    for name in files.names(path):
        below = os.path.join(path, name)
        try:
            files.unlink(below)
        except (IsADirectoryError, PermissionError):  # the latter is what POSIX says of a directory
            remove_tree(files, below)
    files.remove_directory(path)

"""Which file holds the accounts of a configuration."""

from __future__ import annotations

from mailhost.service.config import Config, ConfigError, load
from mailhost.tools.main import Failed


def configuration(path: str) -> Config:
    """@raise Failed: what is wrong with it."""
    try:
        return load(path)
    except ConfigError as error:
        raise Failed(str(error)) from None


def accounts_file(config: Config) -> str:
    """
    The first `passwd` among the checkers.

    @raise Failed: there is none, so the accounts are somebody else's to change.
    """
    for checker in config.checkers:
        kind, _, argument = checker.partition(":")
        if kind == "passwd" and argument:
            return config.path(argument)
    raise Failed(f"checkers = {list(config.checkers)}: none is a passwd file, which is all that this can change")

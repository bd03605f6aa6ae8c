"""Names the checker factories that this package adds to `--auth`; all else is imported when one is used."""

from mailhost.cred.plugin import passwd

__all__ = ["passwd"]

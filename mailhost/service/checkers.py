"""From the configuration's strcred strings to checkers, and from checkers to the accounts an address book asks about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import InvalidAuthType, findCheckerFactory
from zope.interface import implementer

from mailhost.cred.plugin import PasswdCheckerFactory
from mailhost.interfaces import IAccounts, IAccountTerms, IQuotas
from mailhost.service.config import Config, ConfigError


def make_checkers(config: Config) -> list[ICredentialsChecker]:
    """
    The checkers of a configuration, in its order.

    @raise ConfigError: one line for each that cannot be made.
    """
    checkers: list[ICredentialsChecker] = []
    problems: list[str] = []
    for text in config.checkers:
        try:
            checkers.append(_make(text, config.directory))
        except InvalidAuthType:
            problems.append(f'checkers: "{text}": no plugin has that type; `twistd mailhost --help-auth` lists them')
        except Exception as error:
            problems.append(f'checkers: "{text}": {_reason(error)}')
    if problems:
        raise ConfigError(*problems)
    return checkers


def _make(text: str, directory: str) -> ICredentialsChecker:
    kind, _, argument = text.partition(":")
    # Ours needs no search through everybody's plugins, which takes longer than the rest of a start.
    ours = PasswdCheckerFactory()
    factory: Any = ours if kind == ours.authType else findCheckerFactory(kind)
    if hasattr(factory, "generateCheckerIn"):
        checker: ICredentialsChecker = factory.generateCheckerIn(directory, argument)
    else:
        checker = factory.generateChecker(argument)
    return checker


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


@implementer(IAccounts)
class SeveralAccounts:
    """Accounts of several checkers: those of any."""

    def __init__(self, several: Sequence[IAccounts]) -> None:
        self._several = several

    async def has_account(self, address: str) -> bool:
        for accounts in self._several:
            if await accounts.has_account(address):
                return True
        return False


def accounts_of(checkers: Sequence[ICredentialsChecker]) -> IAccounts | None:
    """Who has an account, as far as checkers can say; None when none of them can."""
    several = [accounts for checker in checkers if (accounts := IAccounts(checker, None)) is not None]
    if not several:
        return None
    return several[0] if len(several) == 1 else SeveralAccounts(several)


def terms_of(checkers: Sequence[ICredentialsChecker]) -> list[IAccountTerms]:
    """Those of the checkers that keep terms of POP3, in their order."""
    return [terms for checker in checkers if (terms := IAccountTerms(checker, None)) is not None]


def quotas_of(checkers: Sequence[ICredentialsChecker]) -> list[IQuotas]:
    """Those of the checkers that keep quotas, in their order."""
    return [quotas for checker in checkers if (quotas := IQuotas(checker, None)) is not None]

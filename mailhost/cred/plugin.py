"""`--auth passwd:FILE`, for every program that takes strcred checkers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface import implementer

if TYPE_CHECKING:
    from mailhost.cred.passwd import PasswdChecker
    from mailhost.events import Event, Observer

_HELP = """
Accounts in a file, one a line:

    address:{SCHEME}value

with {SCRAM-SHA-256} as `mailhost user add` and Dovecot write it, or {PLAIN}.
Passwords are verified outside the reactor's thread, and the file is read
again when it changes.  Avatar ids are the addresses, in lower case.
"""


@implementer(ICheckerFactory, IPlugin)
class PasswdCheckerFactory:
    """Makes a checker of the argument's file; imports what that takes only then, since all plugins load for any twistd command."""

    authType = "passwd"
    authHelp = _HELP
    argStringFormat = "Path of a passwd file."
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argument: str) -> PasswdChecker:
        """
        For any program; a relative path counts from where it was started.

        @raise InvalidAuthArgumentString: no path.
        @raise OSError: the file cannot be read.
        @raise ValueError: a line of it is wrong; the words name file and line.
        """
        return self._generate(os.getcwd(), argument, _log)

    def generateCheckerIn(self, directory: str, argument: str) -> PasswdChecker:
        """
        For our host, which observes the checker itself (`PasswdChecker.use`).  Raises the same.

        @param directory: of the configuration that names the checker; a relative path counts from there.
        """
        from mailhost.events import unobserved

        return self._generate(directory, argument, unobserved)

    def _generate(self, directory: str, argument: str, observer: Observer) -> PasswdChecker:
        from mailhost.cred.passwd import PasswdChecker

        if not argument:
            raise InvalidAuthArgumentString("passwd: needs the path of a file")
        return PasswdChecker(os.path.join(directory, argument), observer=observer)


passwd = PasswdCheckerFactory()


def _log(event: Event) -> None:
    """Where no host observes the checker, what it has to say must still be seen."""
    from twisted.logger import Logger

    from mailhost.events import Trouble

    logger = Logger("mailhost.cred")
    tell = logger.warn if isinstance(event, Trouble) else logger.info
    tell("{words}", words=": ".join(str(part) for part in event if part is not None))

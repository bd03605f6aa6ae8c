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
    from mailhost.events import Event

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
        """A relative path counts from where the program was started."""
        return self.generateCheckerIn(os.getcwd(), argument)

    def generateCheckerIn(self, directory: str, argument: str) -> PasswdChecker:
        """
        The same, with a relative path counted from a directory: that of the configuration that names the checker.

        @raise InvalidAuthArgumentString: no path.
        @raise OSError: the file cannot be read.
        @raise ValueError: a line of it is wrong; the words name file and line.
        """
        from mailhost.cred.passwd import PasswdChecker

        if not argument:
            raise InvalidAuthArgumentString("passwd: needs the path of a file")
        return PasswdChecker(os.path.join(directory, argument), observer=_log)


passwd = PasswdCheckerFactory()


def _log(event: Event) -> None:
    """Where no host observes the checker, trouble must still be seen."""
    from twisted.logger import Logger

    Logger("mailhost.cred").warn("{event}", event=event)

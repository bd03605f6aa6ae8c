"""Several checkers behind one portal: who is asked, in which order, and what comes of their answers."""

from __future__ import annotations

import hmac
from typing import Any

from twisted.cred.checkers import (
    ANONYMOUS,
    AllowAnonymousAccess,
    FilePasswordDB,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import (
    Anonymous,
    CramMD5Credentials,
    IAnonymous,
    IUsernameHashedPassword,
    IUsernamePassword,
    UsernamePassword,
)
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailhost.cred.chain import ChainChecker, build_portal
from mailhost.events import Event, Trouble
from mailhost.refusal import LoginForbidden

ANN = UsernamePassword(b"ann", b"secret")


@implementer(ICredentialsChecker)
class Says:
    """A checker that answers as it is told: what it gives, or what it raises."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@implementer(IRealm)
class Echo:
    """A realm whose avatars are the avatar ids."""

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        return interfaces[0], avatarId, lambda: None


class ChainTests(SynchronousTestCase):
    def test_provides_its_interface(self) -> None:
        """The chain is a checker as any other, for all that its members take."""
        chain = ChainChecker([Says(b"ann")])
        verifyObject(ICredentialsChecker, chain)
        assert chain.credentialInterfaces == (IUsernamePassword,)

    def test_first_yes_counts(self) -> None:
        """Nobody is asked after one that says yes."""
        no, yes, later = Says(UnauthorizedLogin()), Says(b"ann"), Says(b"other")
        assert self.successResultOf(ChainChecker([no, yes, later]).requestAvatarId(ANN)) == b"ann"
        assert (no.asked, yes.asked, later.asked) == (1, 1, 0)

    def test_all_kinds_of_answer(self) -> None:
        """Octets, text, a Deferred of either, or a coroutine: all come out as octets."""

        async def later() -> str:
            return "zoë"

        for answer, avatar_id in [
            (b"ann", b"ann"),
            ("zoë", "zoë".encode()),
            (succeed(b"ann"), b"ann"),
            (succeed("zoë"), "zoë".encode()),
            (later(), "zoë".encode()),
        ]:
            assert self.successResultOf(ChainChecker([Says(answer)]).requestAvatarId(ANN)) == avatar_id

    def test_all_kinds_of_no(self) -> None:
        """Raised at once, as a failed Deferred or as a Failure: the next is asked."""
        noes = [
            UnauthorizedLogin(),
            UnhandledCredentials(),
            fail(UnauthorizedLogin()),
            Failure(UnauthorizedLogin()),
        ]
        chain = ChainChecker([*map(Says, noes), Says(b"ann")])
        assert self.successResultOf(chain.requestAvatarId(ANN)) == b"ann"

    def test_no_by_all(self) -> None:
        """Wrong everywhere is wrong."""
        chain = ChainChecker([Says(UnauthorizedLogin()), Says(fail(UnauthorizedLogin()))])
        self.failureResultOf(chain.requestAvatarId(ANN), UnauthorizedLogin)

    def test_error_then_yes(self) -> None:
        """A checker that is away does no harm when another one says yes; the operator hears of it."""
        heard: list[Event] = []
        chain = ChainChecker([Says(OSError("directory is away")), Says(b"ann")], heard.append)
        assert self.successResultOf(chain.requestAvatarId(ANN)) == b"ann"
        (trouble,) = heard
        assert isinstance(trouble, Trouble)
        assert "Says" in trouble.what
        assert "directory is away" in str(trouble.cause)

    def test_error_then_no(self) -> None:
        """It might have said yes: the first error is the outcome, wherever it stands."""
        away = OSError("away")
        for checkers in (
            [Says(away), Says(UnauthorizedLogin())],
            [Says(UnauthorizedLogin()), Says(fail(away)), Says(KeyError("later"))],
        ):
            assert self.failureResultOf(ChainChecker(checkers).requestAvatarId(ANN)).value is away

    def test_refusal_of_a_checker(self) -> None:
        """A checker's own refusal is kept as it is."""
        chain = ChainChecker([Says(LoginForbidden("suspended")), Says(UnauthorizedLogin())])
        self.failureResultOf(chain.requestAvatarId(ANN), LoginForbidden)

    def test_no_avatar_id(self) -> None:
        """Nothing, a number, or ANONYMOUS is no answer to a password: it is a checker's bug, never a login."""
        for answer in (None, b"", "", 7, True, ANONYMOUS):
            self.failureResultOf(ChainChecker([Says(answer)]).requestAvatarId(ANN), TypeError)

    def test_waits_for_an_answer(self) -> None:
        """The next is not asked before the one before has answered."""
        answer: Deferred[bytes] = Deferred()
        later = Says(b"other")
        result = ChainChecker([Says(answer), later]).requestAvatarId(ANN)
        self.assertNoResult(result)
        assert not later.asked
        answer.errback(UnauthorizedLogin())
        assert self.successResultOf(result) == b"other"

    def test_trouble_holds_no_password(self) -> None:
        """A checker that quotes the password in its error is reported without its words."""
        heard: list[Event] = []
        chain = ChainChecker([Says(ValueError("cannot bind with 'secret'")), Says(b"ann")], heard.append)
        self.successResultOf(chain.requestAvatarId(ANN))
        assert "secret" not in repr(heard)
        assert "ValueError" in repr(heard)


class PortalTests(SynchronousTestCase):
    def login(self, checkers: list[Any], credentials: Any) -> Any:
        result = self.successResultOf(build_portal(Echo(), checkers).login(credentials, None, ICredentialsChecker))
        return result[1]

    def test_several_checkers_of_one_interface(self) -> None:
        """Portal alone would keep the last; here each gets its turn."""
        assert self.login([Says(b"first"), Says(b"last")], ANN) == b"first"
        assert self.login([Says(UnauthorizedLogin()), Says(b"last")], ANN) == b"last"

    def test_interfaces_offered(self) -> None:
        """What any checker takes is taken, and anonymous always."""
        portal = build_portal(Echo(), [Says(b"ann"), InMemoryUsernamePasswordDatabaseDontUse()])
        assert set(portal.listCredentialsInterfaces()) == {IUsernamePassword, IUsernameHashedPassword, IAnonymous}
        assert build_portal(Echo(), []).listCredentialsInterfaces() == [IAnonymous]

    def test_anonymous(self) -> None:
        """A stranger's login needs no checker of the operator's, and none of them can spoil it."""
        assert self.login([], Anonymous()) == ANONYMOUS
        assert self.login([AllowAnonymousAccess()], Anonymous()) == ANONYMOUS

    def test_unhandled(self) -> None:
        """Credentials that nobody takes are refused by the portal itself."""
        result = build_portal(Echo(), []).login(ANN, None, ICredentialsChecker)
        self.failureResultOf(result, UnhandledCredentials)

    def test_memory_filled_with_text(self) -> None:
        """`--auth memory:ann:secret` keeps text, which octets never equal: it works through us all the same."""
        database: Any = InMemoryUsernamePasswordDatabaseDontUse()
        database.addUser("ann", "secret")
        database.addUser(b"bob", b"secret")
        assert self.login([database], ANN) == b"ann"
        assert self.login([database], UsernamePassword(b"bob", b"secret")) == b"bob"
        for name, password in [(b"ann", b"wrong"), (b"zoe", b"secret"), (b"\xff", b"secret")]:
            result = build_portal(Echo(), [database]).login(UsernamePassword(name, password), None, ICredentialsChecker)
            self.failureResultOf(result, UnauthorizedLogin)

    def test_memory_filled_later(self) -> None:
        """An application may add users while it runs."""
        database = InMemoryUsernamePasswordDatabaseDontUse()
        portal = build_portal(Echo(), [database])
        database.addUser(b"ann", b"secret")
        assert self.successResultOf(portal.login(ANN, None, ICredentialsChecker))[1] == b"ann"

    def test_memory_with_hashed_credentials(self) -> None:
        """Text passwords do for CRAM-MD5 as well, which wants octets."""
        database: Any = InMemoryUsernamePasswordDatabaseDontUse()
        database.addUser("ann", "secret")
        challenge = CramMD5Credentials(b"mx.example.test")
        digest = hmac.new(b"secret", challenge.challenge, "md5").hexdigest().encode()
        challenge.setResponse(b"ann " + digest)
        assert self.login([database], challenge) == b"ann"

    def test_password_file_of_twisted(self) -> None:
        """`--auth file:` works as it is, and beside others."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"ann:secret\n")
        assert self.login([Says(UnauthorizedLogin()), FilePasswordDB(path)], ANN) == b"ann"

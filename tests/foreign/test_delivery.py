"""Somebody's IMessageDelivery as our IDelivery, with partners that behave and partners that do not."""

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import AlreadyCalledError, CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory, IMessageSMTP
from twisted.mail.smtp import Address, SMTPBadRcpt, SMTPBadSender, SMTPServerError, User
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Path
from mailhost.foreign.delivery import delivery_from_twisted
from mailhost.interfaces import IDelivery, IStagedMessage, ITransaction
from mailhost.limits import Limits
from mailhost.refusal import NoSuchMaildrop, TookTooLong, Worded

CLIENT = Client("s1", "192.0.2.7", 4711, "mx", "smtp", helo="mail.far.example", extended=True)
FAR = Path("zoe", "far.example")
ANN = Path("ann", "example.test")
BOB = Path("bob", "example.test")


@implementer(IMessageSMTP)
class Message:
    """Keeps its lines; `outcome` is what eomReceived answers with, or raises."""

    def __init__(self, outcome=None):
        self.lines = []
        self.ends = 0
        self.lost = 0
        self.outcome = outcome if outcome is not None else succeed(None)
        self.line_error = None

    def lineReceived(self, line):
        if self.line_error is not None:
            raise self.line_error
        self.lines.append(line)

    def eomReceived(self):
        self.ends += 1
        return answered(self.outcome)

    def connectionLost(self):
        self.lost += 1


def answered(answer):
    if isinstance(answer, Exception):
        raise answer
    return answer


@implementer(IMessageDelivery)
class Delivery:
    """Answers as the test has set it, and remembers what it was asked."""

    def __init__(self, *messages):
        self.messages = list(messages) or [Message()]
        self.from_answer = None
        self.to_answer = None
        self.made = None
        self.field = b"Received: by them"
        self.asked = []

    def validateFrom(self, helo, origin):
        self.asked.append((helo, origin))
        return answered(self.from_answer if self.from_answer is not None else origin)

    def validateTo(self, user):
        self.asked.append(user)
        if self.to_answer is not None:
            return answered(self.to_answer)
        message = self.messages[len([asked for asked in self.asked if isinstance(asked, User)]) - 1]
        return lambda: answered(self.made if self.made is not None else message)

    def receivedHeader(self, helo, origin, recipients):
        self.asked.append((helo, origin, recipients))
        return answered(self.field)


class DeliveryTestCase(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.events = []
        self.limits = Limits(lookup_seconds=10, commit_seconds=100)

    def adapted(self, foreign):
        return delivery_from_twisted(
            foreign, hostname="mx.example.test", reactor=self.clock, limits=self.limits, observer=self.events.append
        )

    def begin(self, foreign, reverse_path=FAR, client=CLIENT):
        return Deferred.fromCoroutine(self.adapted(foreign).transaction(client, reverse_path, NO_PARAMETERS))

    def recipient(self, transaction, forward_path=ANN):
        return Deferred.fromCoroutine(transaction.recipient(forward_path, NO_PARAMETERS))

    def staged(self, foreign, *forward_paths):
        transaction = self.successResultOf(self.begin(foreign))
        for forward_path in forward_paths or (ANN,):
            self.successResultOf(self.recipient(transaction, forward_path))
        return self.successResultOf(transaction.content())

    def commit(self, staged):
        return Deferred.fromCoroutine(staged.commit())


class PathTests(DeliveryTestCase):
    def test_provides_the_interfaces(self):
        """All three objects have every method that the contracts name."""
        assert verifyObject(IDelivery, self.adapted(Delivery()))
        assert verifyObject(ITransaction, self.successResultOf(self.begin(Delivery())))
        assert verifyObject(IStagedMessage, self.staged(Delivery()))

    def test_what_they_are_asked(self):
        """They get octets, Address and User objects as from ESMTP."""
        foreign = Delivery()
        self.staged(foreign)
        (helo, origin), user, (field_helo, field_origin, (field_user,)) = foreign.asked
        assert helo == field_helo == user.helo == (b"mail.far.example", b"192.0.2.7")
        assert origin is field_origin
        assert (origin.local, origin.domain, bytes(origin), str(origin)) == (
            b"zoe", b"far.example", b"zoe@far.example", "zoe@far.example",
        )  # fmt: skip
        assert field_user is user
        assert (bytes(user.dest), bytes(user.orig)) == (b"ann@example.test", b"zoe@far.example")
        assert user.protocol.host == b"mx.example.test"

    def test_addresses_are_as_twisted_parses_them(self):
        """Plain and quoted addresses, the null reverse-path and postmaster come out as its own parser makes them."""
        for path in (
            FAR,
            Path("a b", "far.example"),
            Path("a.b+c", "far.example"),
            NULL_REVERSE_PATH,
        ):
            foreign = Delivery()
            self.successResultOf(self.begin(foreign, path))
            parsed = Address(b"<%s>" % path.mailbox.encode(), b"mx.example.test")
            origin = foreign.asked[0][1]
            assert (origin.local, origin.domain, bytes(origin)) == (parsed.local, parsed.domain, bytes(parsed))

    def test_literal_and_postmaster(self):
        """An address literal and a quoted quote, which Twisted's parser refuses, and <postmaster>, who is at our host."""
        foreign = Delivery(Message(), Message(), Message())
        self.staged(foreign, Path("ann", "[192.0.2.1]"), Path('a"b', "example.test"), Path("postmaster", ""))
        users = [bytes(asked) for asked in foreign.asked if isinstance(asked, User)]
        assert users == [b"ann@[192.0.2.1]", b'"a\\"b"@example.test', b"postmaster@mx.example.test"]

    def test_internationalised_addresses(self):
        """They are refused for good, with the status that says why (RFC 6531 3.5)."""
        refusal = self.failureResultOf(self.begin(Delivery(), Path("jürgen", "far.example")), Worded).value
        assert (refusal.code, refusal.status, refusal.temporary) == (553, "5.6.7", False)
        transaction = self.successResultOf(self.begin(Delivery()))
        self.failureResultOf(self.recipient(transaction, Path("ann", "exämple.test")), Worded)

    def test_peer(self):
        """Code that looks at the client's address through the protocol finds it."""
        for host, address in (
            ("192.0.2.7", IPv4Address("TCP", "192.0.2.7", 4711)),
            ("2001:db8::1", IPv6Address("TCP", "2001:db8::1", 4711)),
            ("", UNIXAddress(None)),
        ):
            foreign = Delivery()
            transaction = self.successResultOf(self.begin(foreign, client=CLIENT._replace(host=host)))
            self.successResultOf(self.recipient(transaction))
            assert foreign.asked[-1].protocol.transport.getPeer() == address

    def test_answers_with_another_address(self):
        """The address that validateFrom answers with is the one that counts."""
        foreign = Delivery()
        foreign.from_answer = succeed(Address(b"<other@far.example>"))
        self.staged(foreign)
        assert bytes(foreign.asked[1].orig) == b"other@far.example"

    def test_answers_with_something_else(self):
        """An answer that is no address leaves the client's."""
        for answer in (b"zoe@far.example", "text", True, succeed(None)):
            foreign = Delivery()
            foreign.from_answer = answer
            self.staged(foreign)
            assert bytes(foreign.asked[1].orig) == b"zoe@far.example"

    def test_factory(self):
        """A factory is asked for one delivery for each message, at once or later."""

        @implementer(IMessageDeliveryFactory)
        class Factory:
            def __init__(self):
                self.made = []

            def getMessageDelivery(self):
                self.made.append(Delivery())
                return self.made[-1] if len(self.made) == 1 else succeed(self.made[-1])

        factory = Factory()
        adapted = self.adapted(factory)
        for _ in range(2):
            self.successResultOf(adapted.transaction(CLIENT, FAR, NO_PARAMETERS))
        assert [len(delivery.asked) for delivery in factory.made] == [1, 1]

    def test_coroutines(self):
        """Methods may be coroutines."""

        class Modern(Delivery):
            async def validateFrom(self, helo, origin):
                return origin

            async def validateTo(self, user):
                return lambda: self.messages[0]

        foreign = Modern()
        staged = self.staged(foreign)
        staged.write(b"\r\nx\r\n")
        self.successResultOf(self.commit(staged))
        assert foreign.messages[0].ends == 1


class RefusalTests(DeliveryTestCase):
    def test_their_words(self):
        """An SMTPServerError becomes a refusal in its own words, whether raised at once or by a Deferred."""
        for wrap in (lambda error: error, fail):
            foreign = Delivery()
            foreign.from_answer = wrap(SMTPBadSender(FAR.mailbox, 451, "4.7.1 later, please"))
            refusal = self.failureResultOf(self.begin(foreign), Worded).value
            assert (refusal.code, refusal.status, refusal.detail) == (451, "4.7.1", "later, please")
            assert refusal.temporary
            foreign = Delivery()
            foreign.to_answer = wrap(SMTPBadRcpt(ANN.mailbox))
            transaction = self.successResultOf(self.begin(foreign))
            refusal = self.failureResultOf(self.recipient(transaction), Worded).value
            assert (refusal.code, refusal.status, refusal.temporary) == (550, "", False)

    def test_words_that_are_none(self):
        """Octets, several lines, control characters, no text at all, and codes that are no refusal."""
        for code, response, said in (
            (550, b"5.1.1 no\r\nreally\xff", (550, "5.1.1", "no\nreally?")),
            (550, "tab\tbell\x07 ü", (550, "", "tab?bell? ?")),
            (250, "fine", (451, "", "fine")),
            (99999, None, (451, "", "None")),
            ("550", 17, (451, "", "17")),
        ):
            foreign = Delivery()
            foreign.from_answer = SMTPServerError(code, response)
            refusal = self.failureResultOf(self.begin(foreign), Worded).value
            assert (refusal.code, refusal.status, refusal.detail) == said

    def test_other_exceptions_are_bugs(self):
        """What is no SMTPServerError passes as it is: the session logs it and answers 451."""
        for error in (KeyError("x"), NoSuchMaildrop(), CancelledError()):
            foreign = Delivery()
            foreign.from_answer = error
            assert self.failureResultOf(self.begin(foreign)).value is error

    def test_to_answers_with_no_callable(self):
        """A validateTo that gives a message, or nothing, in place of what makes one is a bug."""
        for answer in (Message(), b"ok", succeed(None)):
            foreign = Delivery()
            foreign.to_answer = answer
            transaction = self.successResultOf(self.begin(foreign))
            self.failureResultOf(self.recipient(transaction), TypeError)

    def test_never_answers(self):
        """After its limit a look-up is cancelled and temporary; no timer is left behind."""
        for attribute in ("from_answer", "to_answer", "made", "field"):
            foreign = Delivery()
            cancelled = []
            setattr(foreign, attribute, Deferred(cancelled.append))
            waiting = Deferred.fromCoroutine(self.whole(foreign))
            self.clock.advance(9.9)
            self.assertNoResult(waiting)
            self.clock.advance(0.2)
            assert self.failureResultOf(waiting, TookTooLong).value.temporary
            assert len(cancelled) == 1
            assert self.clock.getDelayedCalls() == []

    async def whole(self, foreign):
        transaction = await self.adapted(foreign).transaction(CLIENT, FAR, NO_PARAMETERS)
        await transaction.recipient(ANN, NO_PARAMETERS)
        return await transaction.content()

    def test_answers_after_its_limit(self):
        """A message that is made too late is told at once that nothing will come."""
        foreign = Delivery()
        message = Message()
        foreign.made = Deferred(lambda deferred: None if deferred.called else deferred.callback(message))
        waiting = Deferred.fromCoroutine(self.whole(foreign))
        self.clock.advance(10)
        self.failureResultOf(waiting, TookTooLong)
        assert message.lost == 1

    def test_canceller_that_raises(self):
        """It is reported, and changes nothing."""
        foreign = Delivery()
        foreign.from_answer = Deferred(lambda deferred: 1 / 0)
        waiting = self.begin(foreign)
        self.clock.advance(10)
        self.failureResultOf(waiting, TookTooLong)
        (bug,) = self.events
        assert isinstance(bug.failure, ZeroDivisionError)

    def test_cancelled_from_our_side(self):
        """A session that ends lets go of a look-up at once."""
        foreign = Delivery()
        cancelled = []
        foreign.from_answer = Deferred(cancelled.append)
        waiting = self.begin(foreign)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        assert len(cancelled) == 1
        assert self.clock.getDelayedCalls() == []


class ContentTests(DeliveryTestCase):
    def lines(self, *blocks, field=b"Received: by them"):
        foreign = Delivery()
        foreign.field = field
        staged = self.staged(foreign)
        for block in blocks:
            assert staged.write(block) is None
        self.successResultOf(self.commit(staged))
        (message,) = foreign.messages
        assert (message.ends, message.lost) == (1, 0)
        return message.lines

    def test_line_by_line(self):
        """Lines come without their ends, with dots undone, behind the Received field."""
        assert self.lines(b"Subject: x\r\n\r\n..\r\n...a\r\n\r\n") == [
            b"Received: by them",
            b"Subject: x",
            b"",
            b".",
            b"..a",
            b"",
        ]

    def test_blocks_cut_anywhere(self):
        """The same lines, wherever the blocks are cut."""
        content = b"Subject: x\r\n\r\n..\r\n..b\r\n" + b"y" * 50 + b"\r\n\r\n"
        whole = self.lines(content)
        for size in (1, 2, 3, 7):
            assert self.lines(*(content[i : i + size] for i in range(0, len(content), size))) == whole

    def test_long_line_costs_no_copies(self):
        """A line of many blocks is put together once, when it ends."""
        assert self.lines(b"A: ", *[b"x" * 1000] * 2000, b"\r\n")[1] == b"A: " + b"x" * 2_000_000

    def test_no_header_section(self):
        """An empty line keeps a body without header fields from being read as one."""
        for first in (b"Hello Ann,", b" folded", b": x", b"Dear Ann: hi"):
            assert self.lines(first + b"\r\n") == [b"Received: by them", b"", first]
        for first in (b"Subject: x", b"X-1:", b"Odd : x", b""):
            assert self.lines(first + b"\r\n") == [b"Received: by them", first]

    def test_received_field_in_any_form(self):
        """Text or octets, ended by LF, CRLF or nothing, folded or not; or none at all."""
        for field in (
            "Received: a\n\tb",
            b"Received: a\r\n\tb\r\n",
            succeed(b"Received: a\n\tb\n"),
            b"Received: a\n\n\tb",
        ):
            assert self.lines(b"A: b\r\n", field=field) == [b"Received: a", b"\tb", b"A: b"]
        for field in (b"", "", succeed(None)):
            assert self.lines(b"A: b\r\n", field=field) == [b"A: b"]

    def test_each_message_gets_everything(self):
        """Two forward-paths have a message each, with a Received field of its own."""
        foreign = Delivery(Message(), Message())
        staged = self.staged(foreign, ANN, BOB)
        staged.write(b"A: b\r\n")
        outcome = self.successResultOf(self.commit(staged))
        assert outcome == (staged.unique_id, {})
        assert [message.lines for message in foreign.messages] == [[b"Received: by them", b"A: b"]] * 2
        fields = [asked for asked in foreign.asked if isinstance(asked, tuple) and len(asked) == 3]
        assert [[bytes(user) for user in users] for _, _, users in fields] == [
            [b"ann@example.test"],
            [b"bob@example.test"],
        ]

    def test_unique_ids_differ(self):
        """Each transaction has an id of its own."""
        assert self.staged(Delivery()).unique_id != self.staged(Delivery()).unique_id

    def test_one_cannot_be_made(self):
        """When the second message cannot be made, or gets no Received field, all hear of it once, and the client hears why."""
        full = SMTPServerError(452, "full")
        for method, answers, lost in (
            ("validateTo", [lambda: self.message, lambda: answered(full)], 0),
            ("receivedHeader", [None, full], 1),
        ):
            foreign = Delivery(Message(), Message())
            self.message = foreign.messages[0]
            remaining = iter(answers)
            setattr(foreign, method, lambda *_, remaining=remaining: answered(next(remaining)))
            transaction = self.successResultOf(self.begin(foreign))
            for path in (ANN, BOB):
                self.successResultOf(self.recipient(transaction, path))
            assert self.failureResultOf(transaction.content(), Worded).value.code == 452
            transaction.abort()
            assert [message.lost for message in foreign.messages] == [1, lost]

    def test_abort(self):
        """Each message hears of it once, however often it happens, and one that raises keeps nobody from hearing."""
        first, second = Message(), Message()
        first.connectionLost = lambda: 1 / 0
        staged = self.staged(Delivery(first, second), ANN, BOB)
        staged.write(b"A: b\r\n")
        staged.abort()
        staged.abort()
        assert (second.lost, second.ends) == (1, 0)
        assert isinstance(self.events[0].failure, ZeroDivisionError)


class LineErrorTests(DeliveryTestCase):
    def failed(self, error):
        first, second = Message(), Message()
        staged = self.staged(Delivery(first, second), ANN, BOB)
        second.line_error = error
        assert staged.write(b"A: b\r\n") is None
        assert staged.write(b"more\r\n") is None
        assert [message.lost for message in (first, second)] == [1, 1]
        failure = self.failureResultOf(self.commit(staged)).value
        assert [message.ends for message in (first, second)] == [0, 0]
        assert [message.lost for message in (first, second)] == [1, 1]
        return failure

    def test_refused_in_the_middle(self):
        """All messages are dropped at once, the content is taken to its end, and commit says why."""
        refusal = self.failed(SMTPServerError(552, "too big"))
        assert (refusal.code, refusal.temporary) == (552, False)

    def test_bug_in_the_middle(self):
        """The same for any other exception, which passes as the bug it is."""
        assert isinstance(self.failed(KeyError("x")), KeyError)


class OutcomeTests(DeliveryTestCase):
    def outcome(self, *outcomes):
        self.foreign = Delivery(*map(Message, outcomes))
        staged = self.staged(self.foreign, *[ANN] * len(outcomes))
        staged.write(b"A: b\r\n")
        return self.commit(staged)

    def refusal(self, *outcomes):
        refusal = self.failureResultOf(self.outcome(*outcomes)).value
        assert [message.ends for message in self.foreign.messages] == [1] * len(outcomes)
        assert [message.lost for message in self.foreign.messages] == [0] * len(outcomes)
        return refusal

    def test_waits_for_all(self):
        """The client hears when the last message is safe."""
        first, second = Deferred(), Deferred()
        waiting = self.outcome(first, second)
        second.callback(b"saved")
        self.assertNoResult(waiting)
        first.callback(None)
        self.successResultOf(waiting)
        assert self.clock.getDelayedCalls() == []

    def test_permanent_only_if_every_failure_is(self):
        """One temporary failure makes the whole temporary; several permanent ones say the first."""
        permanent, other, temporary = (SMTPServerError(code, "x") for code in (550, 554, 451))
        assert self.refusal(permanent).code == 550
        assert self.refusal(fail(other), permanent).code == 554
        assert self.refusal(permanent, succeed(None)).code == 550
        assert self.refusal(permanent, temporary).code == 451
        assert self.refusal(fail(temporary), fail(permanent)).code == 451
        assert isinstance(self.refusal(permanent, KeyError("x")), KeyError)

    def test_bug_is_temporary(self):
        """An exception that is no SMTPServerError bounces nothing, where ESMTP would answer 550."""
        assert isinstance(self.refusal(fail(OSError(28, "no space"))), OSError)

    def test_no_promise(self):
        """An eomReceived that answers with no Deferred has said nothing about the message."""
        for answer in (b"saved", True, 0):
            assert isinstance(self.refusal(answer), TypeError)

    def test_never_ends(self):
        """After its limit a delivery is cancelled, and the client told to try again: a duplicate is possible, a loss is not."""
        cancelled = []
        waiting = self.outcome(Deferred(cancelled.append), succeed(None))
        self.clock.advance(99)
        self.assertNoResult(waiting)
        self.clock.advance(2)
        assert self.failureResultOf(waiting, TookTooLong).value.temporary
        assert len(cancelled) == 1

    def test_ends_after_its_limit(self):
        """What comes late disturbs nobody."""
        late = Deferred()
        waiting = self.outcome(late)
        self.clock.advance(100)
        self.failureResultOf(waiting, TookTooLong)
        late.callback(b"saved")
        assert self.events == []

    def test_fires_twice(self):
        """A partner that answers twice has the error to itself."""
        twice = Deferred()
        waiting = self.outcome(twice)
        twice.callback(None)
        self.successResultOf(waiting)
        with pytest.raises(AlreadyCalledError):
            twice.callback(None)

    def test_abort_after_the_end(self):
        """No message hears of a lost connection once it was told of its end."""
        self.foreign = Delivery(Message(Deferred()))
        staged = self.staged(self.foreign)
        staged.write(b"A: b\r\n")
        self.commit(staged)
        staged.abort()
        assert self.foreign.messages[0].lost == 0

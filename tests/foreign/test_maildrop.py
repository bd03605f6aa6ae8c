"""Somebody's IMailboxPOP3 as our IMaildrop, with partners that behave and partners that do not."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.mail.interfaces import IMailboxPOP3
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailhost.envelope import Totals
from mailhost.foreign.maildrop import maildrop_from_twisted
from mailhost.interfaces import IContent, IMaildrop
from mailhost.limits import Limits
from mailhost.refusal import ContentDamaged, MaildropLost, NoSuchMessage, TookTooLong


@implementer(IMailboxPOP3)
class Mailbox:
    """Messages as files of octets; `wrap` makes each answer what the test wants it to be."""

    def __init__(self, *messages, wrap=lambda answer: answer):
        self.messages = list(messages)
        self.wrap = wrap
        self.deleted = []
        self.happened = []
        self.files = []

    def listMessages(self, i=None):
        sizes = [0 if message is None else len(message) for message in self.messages]
        return self.wrap(sizes if i is None else sizes[i])

    def getMessage(self, index):
        self.files.append(io.BytesIO(self.messages[index]))
        return self.wrap(self.files[-1])

    def getUidl(self, index):
        return self.wrap(b"uid-%d" % index)

    def deleteMessage(self, index):
        self.deleted.append(index)
        return self.wrap(None)

    def undeleteMessages(self):
        self.deleted.clear()
        self.happened.append("undeleted")

    def sync(self):
        self.happened.append(("sync", *self.deleted))
        return self.wrap(None)


class MaildropTestCase(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.events = []

    def opening(self, mailbox, **options):
        return Deferred.fromCoroutine(
            maildrop_from_twisted(
                mailbox,
                reactor=self.clock,
                limits=Limits(lookup_seconds=10, commit_seconds=100),
                observer=self.events.append,
                **options,
            )
        )

    def turns(self, coroutine):
        """The result of what gives others their turn now and then, but waits for nothing."""
        waiting = coroutine if isinstance(coroutine, Deferred) else Deferred.fromCoroutine(coroutine)
        while self.clock.getDelayedCalls():
            self.clock.advance(0)
        return self.successResultOf(waiting)

    def opened(self, mailbox, **options):
        return self.turns(self.opening(mailbox, **options))

    def message(self, maildrop, number):
        content = self.turns(maildrop.content(number))
        assert verifyObject(IContent, content)
        octets = self.successResultOf(content.read(0, content.wire_octets + 10))
        assert len(octets) == content.wire_octets
        return octets


class OpenTests(MaildropTestCase):
    def test_provides_its_interface(self):
        """It has every method that the contract names."""
        assert verifyObject(IMaildrop, self.opened(Mailbox(b"A: b\n")))

    def test_empty(self):
        """A mailbox without messages is a maildrop without messages."""
        maildrop = self.opened(Mailbox())
        assert maildrop.totals == Totals(0, 0)
        assert self.turns(maildrop.listing()).octets == []

    def test_counts_as_it_will_send(self):
        """Sizes are those of CRLF line ends with one at the end, whatever the files have."""
        maildrop = self.opened(Mailbox(b"A: b\n\nx\n", b"A: b\r\n\r\nx\r\n", b"A: b\n\n.x", b"A: b\r\rx"))
        assert self.turns(maildrop.listing()).octets == [11, 11, 12, 11]
        assert maildrop.totals == Totals(4, 45)

    def test_numbers(self):
        """Messages that are deleted already, and one that has gone since, have no number; the others keep their order."""

        class Gone(Mailbox):
            def getMessage(self, index):
                if index == 3:
                    raise ValueError()
                return super().getMessage(index)

        maildrop = self.opened(Gone(b"0\n", None, b"2\n", b"3\n", b"4\n"))
        assert self.turns(maildrop.listing()).unique_ids == ["uid-0", "uid-2", "uid-4"]
        assert [self.message(maildrop, number) for number in (1, 2, 3)] == [b"0\r\n", b"2\r\n", b"4\r\n"]

    def test_trusted_sizes(self):
        """No message is read at opening when the sizes are promised to be exact; one that breaks the promise is not sent."""
        mailbox = Mailbox(b"A: b\r\n", b"A: b\n")
        maildrop = self.opened(mailbox, sizes_are_exact=True)
        assert mailbox.files == []
        assert maildrop.totals == Totals(2, 11)
        assert self.message(maildrop, 1) == b"A: b\r\n"
        self.failureResultOf(maildrop.content(2), ContentDamaged)

    def test_others_get_their_turn(self):
        """A mailbox of many messages, or of a large one, is read in more than one turn of the reactor."""
        for mailbox in (Mailbox(*[b"x\n"] * 50), Mailbox(b"x\n" * 100_000)):
            waiting = self.opening(mailbox)
            self.assertNoResult(waiting)
            self.turns(waiting)

    def test_files_are_closed(self):
        """Every file that was opened is closed again."""
        mailbox = Mailbox(b"x\n", b"y\n")
        maildrop = self.opened(mailbox)
        self.message(maildrop, 1)
        assert [file.closed for file in mailbox.files] == [True] * 3

    def test_never_answers(self):
        """A mailbox that does not say what it has cannot be opened."""
        waiting = self.opening(Mailbox(b"x\n", wrap=lambda answer: Deferred()))
        self.clock.advance(10)
        self.failureResultOf(waiting, TookTooLong)

    def test_bug(self):
        """What it raises passes as the bug it is."""
        for wrap in (lambda answer: 1 / 0, lambda answer: fail(ZeroDivisionError())):
            self.failureResultOf(self.opening(Mailbox(b"x\n", wrap=wrap)), ZeroDivisionError)


class ContentTests(MaildropTestCase):
    def content(self, message):
        return self.message(self.opened(Mailbox(message)), 1)

    def test_wire_form(self):
        """Dots are doubled and line ends are CRLF, one at the end."""
        assert self.content(b".A: b\n\n.\n..x\ny.\n.") == b"..A: b\r\n\r\n..\r\n...x\r\ny.\r\n..\r\n"

    def test_already_right(self):
        """Content with CRLF line ends is what is sent, to the octet."""
        message = b"A: b\r\n\r\n\x00\xff\r\n\r\n"
        assert self.content(message) == message

    def test_across_blocks(self):
        """Line ends and dots come out the same where the file's blocks meet."""
        for filler in range(64 * 1024 - 4, 64 * 1024 + 2):
            message = b"x" * filler + b"\r\n.\r\ny"
            assert self.content(message) == b"x" * filler + b"\r\n..\r\ny\r\n"

    def test_read_anywhere(self):
        """Any part can be read, in any order, also of a message that is too large for memory."""
        message = b"".join(b"%07d\n" % number for number in range(200_000))
        maildrop = self.opened(Mailbox(message))
        content = self.turns(maildrop.content(1))
        whole = message.replace(b"\n", b"\r\n")
        assert (content.octets, content.wire_octets) == (len(whole), len(whole))
        for offset, count in ((1_000_000, 100), (0, 50), (len(whole) - 5, 100), (len(whole), 10)):
            assert self.successResultOf(content.read(offset, count)) == whole[offset : offset + count]

    def test_header_octets(self):
        """The header section ends behind its empty line."""
        maildrop = self.opened(Mailbox(b"A: b\n.c: d\n\nx\n"))
        assert self.turns(maildrop.content(1)).header_octets == len(b"A: b\r\n..c: d\r\n\r\n")

    def test_text(self):
        """A file of text, or the message itself, is taken for a file of octets."""
        for answer in (io.StringIO("A: ü\n"), "A: ü\n", "A: ü\n".encode()):

            class Odd(Mailbox):
                def getMessage(self, index, answer=answer):
                    if hasattr(answer, "seek"):
                        return io.StringIO(answer.getvalue())
                    return answer

            assert self.message(self.opened(Odd(b"x")), 1) == "A: ü\r\n".encode()

    def test_no_such_number(self):
        """Numbers below 1 and above the last are refused before the mailbox is asked."""
        maildrop = self.opened(Mailbox(b"x\n"))
        for number in (0, -1, 2):
            self.failureResultOf(maildrop.content(number), NoSuchMessage)

    def test_gone(self):
        """A message that another session has removed is refused, whichever exception says so."""
        for error in (ValueError(), IndexError()):
            mailbox = Mailbox(b"x\n")
            maildrop = self.opened(mailbox)
            mailbox.wrap = lambda answer, error=error: fail(error)
            self.failureResultOf(maildrop.content(1), NoSuchMessage)

    def test_changed(self):
        """A message that has changed its size since LIST is not sent as if it had not."""
        mailbox = Mailbox(b"x\n")
        maildrop = self.opened(mailbox)
        mailbox.messages[0] = b"xy\n"
        self.failureResultOf(maildrop.content(1), ContentDamaged)

    def test_file_that_fails(self):
        """A file that fails in the middle fails the retrieval, and is closed."""

        class Failing(io.BytesIO):
            def read(self, size=-1):
                if self.tell():
                    raise OSError(5, "input/output error")
                return super().read(size)

        mailbox = Mailbox(b"x\n" * 100_000)
        maildrop = self.opened(mailbox)
        broken = Failing(mailbox.messages[0])
        mailbox.wrap = lambda answer: broken
        waiting = Deferred.fromCoroutine(maildrop.content(1))
        self.clock.advance(0)
        self.failureResultOf(waiting, OSError)
        assert broken.closed


class ListingTests(MaildropTestCase):
    def test_unique_ids(self):
        """Octets and text are taken as they are; what RFC 1939 does not allow becomes a hash that lasts."""
        for answer, said in ((b"a!~", "a!~"), ("abc", "abc"), (7, "7"), (succeed(b"later"), "later")):

            class Odd(Mailbox):
                def getUidl(self, index, answer=answer):
                    return answer

            assert self.turns(self.opened(Odd(b"x\n")).listing()).unique_ids == [said]
        seen = set()
        for answer in (b"", b"a b", b"x" * 71, "ü", b"\x7f"):

            class Wrong(Mailbox):
                def getUidl(self, index, answer=answer):
                    return answer

            (unique_id,) = self.turns(self.opened(Wrong(b"x\n")).listing()).unique_ids
            (again,) = self.turns(self.opened(Wrong(b"x\n")).listing()).unique_ids
            assert unique_id == again
            assert len(unique_id) == 64
            seen.add(unique_id)
        assert len(seen) == 5

    def test_asked_once(self):
        """The listing is read once."""
        maildrop = self.opened(Mailbox(b"x\n"))
        assert self.turns(maildrop.listing()) is self.turns(maildrop.listing())


class UpdateTests(MaildropTestCase):
    def test_deletes_and_syncs(self):
        """The messages with these numbers are marked, by the mailbox's own numbers, then synced once."""
        for wrap in (lambda answer: answer, succeed):
            mailbox = Mailbox(b"0\n", None, b"2\n", b"3\n", wrap=wrap)
            maildrop = self.opened(mailbox)
            self.turns(maildrop.update([2, 3]))
            assert mailbox.happened == [("sync", 2, 3)]

    def test_returns_when_it_is_done(self):
        """+OK waits for a sync that takes its time."""
        mailbox = Mailbox(b"0\n")
        maildrop = self.opened(mailbox)
        done = Deferred()
        mailbox.wrap = lambda answer: done if mailbox.happened else answer
        waiting = Deferred.fromCoroutine(maildrop.update([1]))
        self.assertNoResult(waiting)
        done.callback(None)
        self.successResultOf(waiting)

    def test_all_or_none(self):
        """When one cannot be deleted all marks are taken back, and nothing is synced."""
        for error, seen in ((ValueError(), MaildropLost), (IndexError(), MaildropLost), (OSError(), OSError)):
            mailbox = Mailbox(b"0\n", b"1\n")
            maildrop = self.opened(mailbox)
            mailbox.wrap = lambda answer, mailbox=mailbox, error=error: fail(error) if 1 in mailbox.deleted else answer
            self.failureResultOf(maildrop.update([1, 2]), seen)
            assert mailbox.happened == ["undeleted"]

    def test_undelete_fails_too(self):
        """The first error is the one that counts; the second is reported."""
        mailbox = Mailbox(b"0\n")
        maildrop = self.opened(mailbox)
        mailbox.wrap = lambda answer: fail(OSError())
        mailbox.undeleteMessages = lambda: 1 / 0
        self.failureResultOf(maildrop.update([1]), OSError)
        assert isinstance(self.events[0].failure, ZeroDivisionError)

    def test_never_synced(self):
        """A sync that does not end within its limit is no success."""
        mailbox = Mailbox(b"0\n")
        maildrop = self.opened(mailbox)
        mailbox.wrap = lambda answer: Deferred() if mailbox.happened else answer
        waiting = Deferred.fromCoroutine(maildrop.update([1]))
        self.clock.advance(99)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        self.failureResultOf(waiting, TookTooLong)

    def test_release(self):
        """There is nothing to let go of, twice."""
        maildrop = self.opened(Mailbox())
        maildrop.release()
        maildrop.release()


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="\r\n.ab", max_size=40).map(str.encode))
def test_any_content(message):
    """Whatever a file has: CRLF ends every line, each line that begins with a dot has one more, and LIST's size is the plain form's."""
    case = MaildropTestCase()
    case.setUp()
    maildrop = case.opened(Mailbox(message))
    if not message:
        assert maildrop.totals == Totals(0, 0)
        return
    lines = message.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    if not lines[-1]:
        lines.pop()
    plain = b"".join(line + b"\r\n" for line in lines)
    wire = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    assert case.message(maildrop, 1) == wire
    assert maildrop.totals == Totals(1, len(plain))


@pytest.mark.parametrize("wrap", [lambda answer: answer, succeed])
def test_answers_at_once_or_by_deferred(wrap):
    """Every method may answer with a Deferred."""
    case = MaildropTestCase()
    case.setUp()
    mailbox = Mailbox(b"x\n", wrap=wrap)
    maildrop = case.opened(mailbox)
    assert case.message(maildrop, 1) == b"x\r\n"
    assert case.turns(maildrop.listing()).unique_ids == ["uid-0"]

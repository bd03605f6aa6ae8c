"""
A process that delivers to a spool as fast as it can, and says on its standard output what was acknowledged.

Run as `python worker.py DIRECTORY NAME`; ends by being killed.  Every fifth line is a deletion: `- subject`.
"""

from __future__ import annotations

import os
import sys

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Copy, Envelope, Path
from mailhost.spool.log.spool import LogSpool

ENVELOPE = Envelope(
    Client("s1", "192.0.2.1", 40000, "mx", "smtp"), NULL_REVERSE_PATH, NO_PARAMETERS, (Path("ann", "example.test"),)
)


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


async def deliver(spool: LogSpool, name: str, number: int) -> None:
    subject = f"{os.getpid()}-{number}"
    staged = await spool.stage(ENVELOPE, [Copy(name, b"")])
    room = staged.write(b"Subject: " + subject.encode() + b"\r\n\r\n" + b"x" * (number * 37 % 9000) + b"\r\n")
    if room is not None:
        await room
    say(f"? {subject}")
    await staged.commit()
    say(f"+ {subject}")


async def delete_first(spool: LogSpool, name: str) -> None:
    maildrop = await spool.open_maildrop(name, 10)
    if maildrop.totals.messages:
        content = await (await maildrop.content(1)).read(0, 200)
        subject = content.partition(b"\r\n")[0].partition(b" ")[2].decode()
        say(f"~ {subject}")
        await maildrop.update([1])
        say(f"- {subject}")
    maildrop.release()


async def work(directory: str, name: str) -> None:
    spool = LogSpool(directory, reactor=reactor, segment_octets=100_000, large_octets=8000)
    await spool.start()
    number = 0
    while True:
        await gatherResults(
            [Deferred.fromCoroutine(deliver(spool, name, number + more)) for more in range(1 + number % 7)]
        )
        number += 1 + number % 7
        await delete_first(spool, name)


def main() -> None:
    def failed(failure: object) -> None:
        say(f"! {failure}")
        os._exit(1)

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(work(sys.argv[1], sys.argv[2])).addErrback(failed))
    reactor.run()


if __name__ == "__main__":
    main()

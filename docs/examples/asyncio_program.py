"""Mail into an asyncio program.  Run it: python asyncio_program.py"""

import asyncio

from mailhost.embed import MailHost, NoSuchMaildrop, reactor_on_this_loop

queue = asyncio.Queue(maxsize=100)


async def known(forward_path):
    await asyncio.sleep(0)  # a database, perhaps
    if forward_path.local_part not in ("orders", "support"):
        raise NoSuchMaildrop()


async def arrived(envelope, content):  # a task of this loop: whatever asyncio has can be awaited
    message = b"".join([block async for block in content.plain()])
    await queue.put((envelope, message))  # a full queue makes senders wait


async def work():
    while True:
        envelope, message = await queue.get()
        print(f"{envelope.reverse_path} {len(message)} octets", flush=True)


async def main():
    async with reactor_on_this_loop(), asyncio.TaskGroup() as group:
        group.create_task(work())
        host = MailHost(hostname="mx.example.test", recipient=known, receive=arrived)
        host.listen("smtp", "tcp:2525:interface=127.0.0.1")
        async with host:
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

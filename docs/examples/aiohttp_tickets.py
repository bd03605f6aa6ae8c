"""Mail becomes tickets of an aiohttp application.  Run it: python aiohttp_tickets.py"""

from email import message_from_bytes, policy

from aiohttp import web

from mailhost.embed import MailHost, NoSuchMaildrop, reactor_on_this_loop

tickets = []


async def known(forward_path):
    if forward_path.local_part != "support":
        raise NoSuchMaildrop()


async def arrived(envelope, content):
    octets = b"".join([block async for block in content.plain()])
    message = message_from_bytes(octets, policy=policy.default)
    tickets.append({"from": envelope.reverse_path.mailbox, "subject": message["Subject"]})


async def mail(app):  # starts with the application, stops with it
    async with reactor_on_this_loop():
        host = MailHost(hostname="mx.example.test", recipient=known, receive=arrived)
        host.listen("smtp", "tcp:2525:interface=127.0.0.1")
        async with host:
            yield


async def index(request):
    return web.json_response(tickets)


app = web.Application()
app.cleanup_ctx.append(mail)
app.router.add_get("/", index)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=8080)

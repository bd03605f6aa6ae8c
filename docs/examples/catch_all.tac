"""All mail, whoever it is for, on a web page.  Run it: twistd -ny catch_all.tac, and look at http://127.0.0.1:8080/"""

from collections import deque
from email import message_from_bytes, policy
from html import escape

from twisted.application.internet import TCPServer
from twisted.application.service import Application
from twisted.web.resource import Resource
from twisted.web.server import Site

from mailhost.embed import MailHost

latest = deque(maxlen=100)


async def arrived(envelope, content):
    octets = b"".join([block async for block in content.plain()])
    latest.appendleft((envelope, message_from_bytes(octets, policy=policy.default)))


class Page(Resource):
    isLeaf = True

    def render_GET(self, request):
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        rows = (f"<li>{escape(str(message['Subject']))}: {escape(to(envelope))}</li>" for envelope, message in latest)
        return f"<title>Mail</title><ul>{''.join(rows)}</ul>".encode()


def to(envelope):
    return ", ".join(path.mailbox for path in envelope.forward_paths)


application = Application("catch-all")
host = MailHost(hostname="mx.example.test", receive=arrived)
host.listen("smtp", "tcp:2525:interface=127.0.0.1")
host.setServiceParent(application)
TCPServer(8080, Site(Page()), interface="127.0.0.1").setServiceParent(application)

"""The three twistd plugins: everything, mail in alone, mail out alone."""

from twisted.application.service import ServiceMaker

mailhost = ServiceMaker(
    "mailhost",
    "mailhost.service.tap.mailhost",
    "A mail host: mail in by SMTP, durable in one spool, out by POP3.",
    "mailhost",
)
mailhost_smtp = ServiceMaker(
    "mailhost-smtp",
    "mailhost.service.tap.mailhost_smtp",
    "The listeners for mail in of a mail host, over a spool that other processes share.",
    "mailhost-smtp",
)
mailhost_pop3 = ServiceMaker(
    "mailhost-pop3",
    "mailhost.service.tap.mailhost_pop3",
    "The listeners for mail out of a mail host, over a spool that other processes share.",
    "mailhost-pop3",
)

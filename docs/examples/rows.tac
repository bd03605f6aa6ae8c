"""Rows of a database, fetched by POP3.  Run it: twistd -ny rows.tac"""

import sqlite3

from twisted.application.service import Application
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.enterprise.adbapi import ConnectionPool

from mailhost.embed import MailHost, Messages

with sqlite3.connect("shop.sqlite3") as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS notes (number INTEGER PRIMARY KEY, customer, subject, text, fetched)")
    connection.execute("INSERT OR IGNORE INTO notes VALUES (1, 'ann', 'Paid', 'Thank you.', 0), (2, 'ann', 'Sent', 'Soon.', 0)")

database = ConnectionPool("sqlite3", "shop.sqlite3", check_same_thread=False)


class Notes(Messages):
    async def listing(self):
        query = "SELECT number FROM notes WHERE customer = ? AND NOT fetched ORDER BY number"
        return [(f"note-{number}", None) for (number,) in await database.runQuery(query, [self.account.decode()])]

    async def content(self, unique_id):
        query = "SELECT subject, text FROM notes WHERE number = ?"
        ((subject, text),) = await database.runQuery(query, [unique_id.removeprefix("note-")])
        return f"Subject: {subject}\n\n{text}\n".encode()

    async def remove(self, unique_ids):  # one transaction: all of them or none
        numbers = [(unique_id.removeprefix("note-"),) for unique_id in unique_ids]
        await database.runInteraction(lambda rows: rows.executemany("UPDATE notes SET fetched = 1 WHERE number = ?", numbers))


checker = InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")
host = MailHost(hostname="pop.example.test", maildrop=Notes, checkers=[checker])
host.listen("pop3", "tcp:2110:interface=127.0.0.1", plaintext_login=True)

application = Application("shop")
host.setServiceParent(application)

"""The Maildir spool: a file per message, for those who share their mail with other programs."""

"""A mail host: mail in by SMTP and LMTP, durable in one spool, out by POP3."""

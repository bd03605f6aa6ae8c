"""POP3, the serving side (RFC 1939)."""

"""The default spool: an append-only log with a derived index."""

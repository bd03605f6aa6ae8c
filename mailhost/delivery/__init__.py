"""Who lives here, and the way of a message into the spool."""

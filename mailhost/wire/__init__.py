"""How any conversation is driven on a transport, whatever its protocol."""

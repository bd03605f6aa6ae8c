"""Hooks that may refuse, defer or mark mail."""

"""Twisted's own mail interfaces to ours and back."""

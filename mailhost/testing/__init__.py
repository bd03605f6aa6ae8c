"""Fixtures and fakes for other people's tests and ours."""

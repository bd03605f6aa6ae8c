"""
The pytest plugin: a fixture, `mail_host`.

pytest loads this file in every run, also where nobody uses it, so it imports nothing until a test asks for a host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mailhost.testing.process import MailHostProcess


@pytest.fixture(scope="session")
def _mail_host_process() -> Iterator[MailHostProcess]:
    """One process serves all tests of a run: it takes half a second to start, and nothing to clear."""
    from mailhost.testing.process import MailHostProcess

    with MailHostProcess() as host:
        yield host


@pytest.fixture
def mail_host(_mail_host_process: MailHostProcess) -> MailHostProcess:
    """A mail host on free ports of 127.0.0.1, empty: `mail_host.smtp_address`, `mail_host.wait_for("ann@example.test")`."""
    _mail_host_process.reset()
    return _mail_host_process

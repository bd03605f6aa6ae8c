"""`mailhost check`: everything that would end a start, and what the host would do, without opening a spool or a port."""

from __future__ import annotations

import os

from twisted.internet.task import Clock

from mailhost.service.assemble import Assembly
from mailhost.service.certificates import CertificateError
from mailhost.service.config import Config, ConfigError, located
from mailhost.spool.files import Files
from mailhost.spool.log.layout import Layout
from mailhost.tools.accounts import configuration
from mailhost.tools.main import Failed
from mailhost.tools.owner import owner_of


def check(path: str) -> int:
    """
    @return: the exit status.
    @raise Failed: what would end a start.
    """
    config = configuration(path)
    try:
        Assembly(reactor=Clock()).host(config)
    except (ConfigError, CertificateError) as error:
        raise Failed(located(path, error)) from None
    if why := _spool_obstacle(config):
        raise Failed(f"{path}: spool: {why}")
    for line in [*_summary(config), *_warnings(config)]:
        print(line)
    return 0


def _spool_obstacle(config: Config) -> str | None:
    if config.spool_directory is None or config.maildir_pattern is not None:
        return None
    try:
        return Layout(Files(), config.spool_directory).obstacle()
    except PermissionError:  # it is another user's, which is said below
        return None


def _summary(config: Config) -> list[str]:
    return [
        f"host name  {config.hostname}",
        f"domains    {', '.join(config.domains)}",
        f"spool      {config.spool_directory or 'in memory'}",
        f"checkers   {', '.join(config.checkers)}",
        *(
            f"listen     {listen.protocol} at {listen.endpoint}, tls {listen.tls}"
            + (", plaintext logins allowed" if listen.plaintext_login else "")
            for listen in config.listen
        ),
    ]


def _warnings(config: Config) -> list[str]:
    """What starts, but may not be what was meant."""
    warnings = [
        f"warning    {listen.name}: nobody can log in without TLS, and it has none"
        for listen in config.listen
        if listen.protocol not in ("smtp", "lmtp") and listen.tls == "none" and not listen.plaintext_login
    ]
    directory = config.spool_directory
    if directory is not None and not os.path.isdir(directory):
        warnings.append(f"warning    {directory} is not there yet; the first start makes it")
    if directory is not None and owner_of(directory)[0] not in (os.geteuid(), 0):
        warnings.append(f"warning    {directory} belongs to another user, as whom the host runs when root starts it")
    return warnings

"""
What the commands on stored mail take: `mailhost spool | maildrop | backup | restore`.

Only the parsers: a command's own module is imported when it is asked for.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

Command = Callable[[argparse.Namespace], int]
MBOX_KINDS = ("auto", "mboxo", "mboxrd", "mboxcl", "mboxcl2")

Verbs = Any  # argparse's name for it is private


def spool(parser: argparse.ArgumentParser) -> None:
    verbs = _verbs(parser)
    _verb(verbs, "status", "spool", "segments, messages, index, room")
    _verb(verbs, "verify", "spool", "read every checksum, and compare the index with the segments")
    _verb(verbs, "repair", "spool", "put what is damaged into quarantine, and say which maildrops lost what")
    _verb(verbs, "rebuild-index", "spool", "make the index anew from the segments; the host must be stopped")
    _verb(verbs, "compact", "spool", "give back the space of deleted messages now, as the host does by itself")


def maildrop(parser: argparse.ArgumentParser) -> None:
    verbs = _verbs(parser)
    _verb(verbs, "list", "maildrop", "all maildrops, with their totals")
    _about(_verb(verbs, "show", "maildrop", "the messages in a maildrop"))
    renamed = _about(_verb(verbs, "rename", "maildrop", "give a maildrop another name"))
    renamed.add_argument("new", metavar="NEW", help="the new name")
    removed = _about(_verb(verbs, "remove", "maildrop", "remove a maildrop and all mail in it"))
    removed.add_argument("--yes", action="store_true", help="do not ask")
    undeleted = _about(_verb(verbs, "undelete", "maildrop", "deleted mail that can still be had, and have it again"))
    undeleted.add_argument(
        "unique_ids", metavar="ID", nargs="*", help="which messages; none of them: say which there are"
    )
    undeleted.add_argument("--all", action="store_true", help="all there are")
    imported = _about(_verb(verbs, "import", "maildrop", "take mail from a Maildir or an mbox file"))
    imported.add_argument("source", metavar="PATH", help="a Maildir, Dovecot's too, or an mbox file")
    imported.add_argument(
        "--kind", choices=MBOX_KINDS, default="auto", help="how an mbox file quotes; found out otherwise"
    )
    exported = _about(_verb(verbs, "export", "maildrop", "give mail out as a Maildir or an mbox file"))
    exported.add_argument("target", metavar="PATH", help="what to make")
    exported.add_argument("--format", choices=("maildir", "mbox"), default="maildir")


def backup(parser: argparse.ArgumentParser) -> None:
    _common(parser, _from("backup", "backup"))
    parser.add_argument("directory", metavar="DIR", help="of the backups; made if it is not there")
    parser.add_argument("--keep", type=int, metavar="N", help="remove all backups but the latest N, this one counted")
    parser.add_argument("--list", action="store_true", help="say which backups there are, and make none")


def restore(parser: argparse.ArgumentParser) -> None:
    _common(parser, _from("backup", "restore"))
    parser.add_argument(
        "directory", metavar="DIR", help="of the backups; the configuration says where the spool will be"
    )
    parser.add_argument("--manifest", metavar="NAME", help="which backup; the latest unless given")
    parser.add_argument("--check", action="store_true", help="read the whole backup, and restore nothing")


def _about(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("maildrop", metavar="NAME", help="an address, or a maildrop's name")
    return parser


def _verbs(parser: argparse.ArgumentParser) -> Verbs:
    return parser.add_subparsers(title="verbs", required=True, metavar="VERB")


def _verb(verbs: Verbs, verb: str, module: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(verb, help=text)
    _common(parser, _from(module, verb))
    return parser


def _common(parser: argparse.ArgumentParser, command: Command) -> None:
    parser.set_defaults(command=command)
    parser.add_argument("--config", "-c", required=True, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="say it as JSON")


def _from(module: str, verb: str) -> Command:
    """The function of this verb, from a module's table."""

    def command(parsed: argparse.Namespace) -> int:
        verbs: dict[str, Command] = importlib.import_module(f"mailhost.tools.{module}").VERBS
        return verbs[verb](parsed)

    return command

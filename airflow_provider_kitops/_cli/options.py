"""Flags that every verb understands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_kitops._cli.session import Session

Verbs = Any  # argparse keeps the type of what add_subparsers returns to itself
Run = Callable[["Session", argparse.Namespace], int]


def add_common(parser: argparse.ArgumentParser, *, defaults: bool) -> None:
    """Add the common flags.

    :param defaults: False for a verb's own parser, which must not overwrite what was given before the verb.
    """
    group = parser.add_argument_group("common flags")

    def add(*names: str, default: Any = None, **more: Any) -> None:
        group.add_argument(*names, default=default if defaults else argparse.SUPPRESS, **more)

    add("--layout", type=path, metavar="DIR", help="local layout (default: $MODELKIT_LAYOUT, or a user directory)")
    add("--plain-http", action="store_true", default=False, help="talk to the registry without TLS")
    add("--ca-bundle", type=path, metavar="FILE", help="certificates to trust instead of the system's")
    add("--client-cert", type=path, metavar="FILE", help="client certificate")
    add("--client-key", type=path, metavar="FILE", help="key of the client certificate")
    add("--proxy", default="", metavar="URL", help="proxy (default: the environment's)")
    add("-u", "--username", default="", metavar="NAME", help="user of the registry that the reference names")
    add(
        "--password-stdin",
        action="store_true",
        default=False,
        help="read the password from standard input; without --username it is an identity token",
    )
    add(
        "--docker-config",
        type=path,
        metavar="PATH",
        help="Docker's config file, or its directory (default: the usual place)",
    )
    add("--concurrency", type=_positive, default=5, metavar="N", help="transfers at a time (default: 5)")
    add(
        "--mutable-tags",
        metavar="PATTERNS",
        help="tags that may move, separated by commas (default: latest,champion,challenger,staging)",
    )
    add("--json", action="store_true", default=False, help="print one JSON object on standard output")
    add("-q", "--quiet", action="store_true", default=False, help="no progress on standard error")


def add_verb(verbs: Verbs, name: str, run: Run, summary: str, description: str = "") -> argparse.ArgumentParser:
    """A verb's parser, with the common flags."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=description or summary, allow_abbrev=False
    )
    add_common(parser, defaults=False)
    parser.set_defaults(run=run)
    return parser


def path(text: str) -> Path:
    """The path that was given. An empty one, of a variable that is not set, would mean the current directory."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def seconds(text: str) -> float:
    """A time to wait: finite, and above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be a number above 0")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value

"""Flags that every verb understands."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_kitops.oci.errors import InvalidInput

if TYPE_CHECKING:
    from airflow_provider_kitops._cli.session import Session

Verbs = Any  # argparse keeps the type of what add_subparsers returns to itself
Run = Callable[["Session", argparse.Namespace], int]


def path(text: str) -> Path:
    """The path that was given. An empty one, of a variable that is not set, would mean the current directory."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def proxy(text: str) -> str:
    """The address of a proxy. Every user of the machine can read a command line, so it may hold no password."""
    try:
        parts = urlsplit(text)
    except ValueError:
        raise argparse.ArgumentTypeError("it is no address") from None
    if parts.username is not None or "@" in text:
        raise argparse.ArgumentTypeError(
            "every user of the machine could read its user and password; set https_proxy in the environment instead"
        )
    return text


# How to reach a registry, as fields of ``StoreConfig``.
_REGISTRY_FLAGS: Mapping[str, Mapping[str, Any]] = {
    "plain-http": {"action": "store_true", "default": False, "help": "talk to the registry without TLS"},
    "ca-bundle": {"type": path, "metavar": "FILE", "help": "certificates to trust instead of the system's"},
    "client-cert": {"type": path, "metavar": "FILE", "help": "client certificate"},
    "client-key": {"type": path, "metavar": "FILE", "help": "key of the client certificate"},
    "proxy": {"type": proxy, "default": "", "metavar": "URL", "help": "proxy (default: the environment's)"},
    "token-hosts": {
        "default": "",
        "metavar": "HOSTS",
        "help": "token services outside the registry's domain that may be told the credentials, separated by commas",
    },
}


def add_common(parser: argparse.ArgumentParser, *, defaults: bool) -> None:
    """Add the common flags.

    :param defaults: False for a verb's own parser, which must not overwrite what was given before the verb.
    """
    group = parser.add_argument_group("common flags")

    def add(*names: str, default: Any = None, **more: Any) -> None:
        group.add_argument(*names, default=default if defaults else argparse.SUPPRESS, **more)

    add("--layout", type=path, metavar="DIR", help="local layout (default: $MODELKIT_LAYOUT, or a user directory)")
    for name, more in _REGISTRY_FLAGS.items():
        add(f"--{name}", **more)
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


def add_sides(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the registry for each side of a copy alone: ``--from-…`` and ``--to-…``."""
    for side, named in (("from", "REF"), ("to", "DESTINATION")):
        group = parser.add_argument_group(f"flags of the registry of {named} alone")
        for name, more in _REGISTRY_FLAGS.items():
            group.add_argument(f"--{side}-{name}", **{**more, "default": None, "help": f"as --{name}"})


def of_registry(options: argparse.Namespace, side: str = "") -> dict[str, Any]:
    """The settings of ``StoreConfig`` that the flags of a registry give.

    :param side: ``from`` or ``to``; what is said for it alone goes before what is said for all.
    :raises InvalidInput: a value cannot be used.
    """
    found = {name.replace("-", "_"): getattr(options, name.replace("-", "_")) for name in _REGISTRY_FLAGS}
    found.update(of_side(options, side))
    found["token_hosts"] = words(found["token_hosts"])
    return found


def of_side(options: argparse.Namespace, side: str) -> dict[str, Any]:
    """What the flags of a registry say for one side of a copy alone; empty for other verbs."""
    given = {
        name.replace("-", "_"): getattr(options, f"{side}_{name.replace('-', '_')}", None) for name in _REGISTRY_FLAGS
    }
    return {name: value for name, value in given.items() if value is not None}


def pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
    """What ``KEY=VALUE`` flags say.

    :raises InvalidInput: one of them is not of that form, or two give one key different values.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidInput(f"{flag} {text!r} is not KEY=VALUE.")
        if found.setdefault(key, value) != value:
            raise InvalidInput(f"{flag} gives {key!r} two values: {found[key]!r} and {value!r}.")
    return found


def add_label(parser: argparse.ArgumentParser, flag: str = "--label", what: str = "an index") -> None:
    """Add the flag that picks a ModelKit of an index."""
    parser.add_argument(
        flag, action="append", default=[], metavar="KEY=VALUE", help=f"which ModelKit to take of {what}"
    )


def words(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(word for each in text.split(",") if (word := each.strip()))


def add_verb(verbs: Verbs, name: str, run: Run, summary: str, description: str = "") -> argparse.ArgumentParser:
    """A verb's parser, with the common flags."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=description or summary, allow_abbrev=False
    )
    add_common(parser, defaults=False)
    parser.set_defaults(run=run)
    return parser


def content_of(file: Path) -> bytes:
    """The bytes of a file that the command line names.

    :raises InvalidInput: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: OSError) -> InvalidInput:
    """The error for a file or directory of the command line that cannot be read."""
    return InvalidInput(f"Cannot read {file}: {error.strerror or type(error).__name__}.")


def seconds(text: str) -> float:
    """A time to wait: finite, and above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return value

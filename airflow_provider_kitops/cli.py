"""The command ``modelkit``: the calls of this package, for people and for containers (docs/cli.md)."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from airflow_provider_kitops import __version__
from airflow_provider_kitops._cli import account, content, evidence, init, inspection, promotion, tags, workload
from airflow_provider_kitops._cli.options import add_common
from airflow_provider_kitops._cli.session import Session, shown
from airflow_provider_kitops.oci.errors import KitopsError

_INTERRUPTED = 128 + 2  # what shells report for SIGINT
_TERMINATED = 128 + 15  # for SIGTERM
_BROKEN_PIPE = 128 + 13  # and for SIGPIPE
# As other commands take a password; none of our flags is written so.
_PASSWORD = re.compile(r"(--(?:password|passwd|pass|pwd))(?:=.*)?|(-p).*", re.DOTALL)

_EPILOG = """\
references:
  [registry/]repository[:tag][@sha256:...]; the first part is a registry if it holds a dot or a colon or is
  localhost. With a registry the command talks to it; without, to the local layout.

exit codes:
  0 done, 1 failed, 2 usage, 3 not found, 4 unauthorized or forbidden, 5 conflict, 6 verification failed,
  7 unavailable, 10 different (diff only), 130 interrupted, 143 terminated, 141 nobody reads the output any longer
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs. The common flags may stand before the verb or after it."""
    parser = argparse.ArgumentParser(
        prog="modelkit",
        description="Pack, move, compare, attest and promote ModelKits.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"modelkit {__version__}")
    add_common(parser, defaults=True)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for module in (init, content, tags, inspection, account, evidence, promotion, workload):
        module.add_verbs(verbs)
    for verb in verbs.choices.values():
        verb.set_defaults(parser=verb)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    :param argv: arguments without the program's name; None = those of the process.
    :raises SystemExit: with 2 for a command line that cannot be parsed, with 0 after ``--help`` or ``--version``.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us, who wants to see nothing
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
    options = _parse(sys.argv[1:] if argv is None else argv)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    try:
        with Session(options) as session, _signals():
            code: int = options.run(session, options)
        sys.stdout.flush()
    except _Terminated:
        return _fail("terminated.", _TERMINATED)
    except KeyboardInterrupt:
        return _fail("interrupted.", _INTERRUPTED)
    except KitopsError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}.", 1)
    except Exception as error:  # noqa: BLE001 - whoever types a command is helped by a line, not by a traceback
        return _fail(f"{type(error).__name__}: {error}", 1)
    return code


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; what is wrong with it is told with the usage of its verb, and no value of an unknown flag."""
    parser = build_parser()
    for word in argv:
        if word == "--":
            break
        # Before anything else is looked at: wherever it stands, the parser might quote what follows as it stands.
        if found := _PASSWORD.fullmatch(word):
            _verb_of(parser, argv).error(
                f"there is no {found[1] or found[2]}: every user of the machine could read it; use --password-stdin"
            )
    options, unknown = parser.parse_known_args(argv)
    flags = [_flag(word) for word in unknown if word.startswith("-") and word != "-"]
    if flags:
        known = [name for action in options.parser._actions for name in action.option_strings if name.startswith("--")]
        told = []
        for flag in flags:
            near = difflib.get_close_matches(flag, known, n=1)
            told.append(f"unknown flag {flag}" + (f" (did you mean {near[0]}?)" if near else ""))
        options.parser.error("; ".join(told))
    if unknown:
        options.parser.error(f"too much: {' '.join(unknown)}")
    return options


def _flag(word: str) -> str:
    """The flag without a value that is written into the same word."""
    return word.partition("=")[0] if word.startswith("--") else word[:2]


def _verb_of(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.ArgumentParser:
    [verbs] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    found: Iterator[argparse.ArgumentParser] = (verbs.choices[word] for word in argv if word in verbs.choices)
    return next(found, parser)


class _OneLine(logging.Formatter):
    """A record in one line that a terminal may show: it may quote a ModelKit of somebody else's."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(" ".join(record.getMessage().split()))


class _Terminated(KeyboardInterrupt):
    """SIGTERM: what is half done is cleaned up as after Ctrl-C."""


@contextmanager
def _signals() -> Iterator[None]:
    """Both signals unwind whatever is under way."""

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminate}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(message: str, code: int) -> int:
    print(f"modelkit: {shown(' '.join(message.split()))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

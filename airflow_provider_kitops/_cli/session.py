"""One run of the command: the stores that its references name, progress, and the answer."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops._cli.options import of_registry, of_side, words
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.oci.reference import UNNAMED, Reference
from airflow_provider_kitops.oci.tagging import DEFAULT_MUTABLE_TAGS, split_reference

if TYPE_CHECKING:
    from airflow_provider_kitops.oci.descriptor import Descriptor
    from airflow_provider_kitops.oci.store import Store, StoreConfig
    from airflow_provider_kitops.oci.target import ProgressHook, Target

DEFAULT_TAG = "latest"

logger = logging.getLogger("modelkit")

# Control characters, surrogates, and what turns the direction of writing: a terminal would obey them, so a ModelKit
# of somebody else's could forge what is read there.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Session:
    """Opens a store for each registry that a reference names, with the flags of the command line.

    Credentials from the command line go to one registry only: a command that names two needs those that ``login``
    stored for each.

    :param options: the parsed command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._stores: dict[StoreConfig, Store] = {}
        self._password: str | None = None
        self._authenticated: str | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def mutable_tags(self) -> tuple[str, ...]:
        """Patterns of the tags that may move."""
        if self._options.mutable_tags is None:
            return tuple(DEFAULT_MUTABLE_TAGS)
        return words(self._options.mutable_tags)

    def store(self, registry: str, side: str = "") -> Store:
        """The store of a registry; of the local layout for an empty name. Sends nothing.

        :param side: of a copy, ``from`` or ``to``: which of the flags for one side count.
        :raises InvalidInput: credentials were given for two registries at once, or cannot be used; or a flag is for
            a registry where there is none.
        """
        from airflow_provider_kitops.oci.store import Store, StoreConfig

        options = self._options
        alone = of_side(options, side)
        if alone and not registry:
            flags = ", ".join(f"--{side}-{name.replace('_', '-')}" for name in alone)
            raise InvalidInput(f"{flags} is for a registry, and that side of the copy is the local layout.")
        config = StoreConfig(
            registry=registry,
            layout=options.layout,
            docker_config=options.docker_config,
            concurrency=options.concurrency,
            mutable_tags=self.mutable_tags,
            **of_registry(options, side),
        )
        if registry and (options.username or options.password_stdin):
            config = self._with_credentials(config)
        if config not in self._stores:
            self._stores[config] = self._stack.enter_context(Store(config))
        return self._stores[config]

    def _with_credentials(self, config: StoreConfig) -> StoreConfig:
        if self._authenticated not in (None, config.registry):
            raise InvalidInput(
                f"--username and --password-stdin are for one registry, and this command names two: "
                f"{self._authenticated} and {config.registry}.",
                hint="Log in to each of them first: modelkit login.",
            )
        self._authenticated = config.registry
        if self._options.username:
            return replace(config, username=self._options.username, password=self.password())
        return replace(config, identity_token=self.password())

    def password(self) -> str:
        """The password from standard input, or from the terminal.

        :raises InvalidInput: there is none to be had.
        """
        if self._password is None:
            if self._options.password_stdin:
                # One trailing line end belongs to whatever wrote it, not to the password.
                self._password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
            elif sys.stdin.isatty():
                self._password = getpass.getpass()
            else:
                raise InvalidInput(
                    "--username needs a password, and none is ever read from the command line.",
                    hint="Pipe it in with --password-stdin.",
                )
            if not self._password:
                raise InvalidInput("The password is empty.")
        return self._password

    def target(self, text: str, side: str = "") -> tuple[Store, Reference, Target]:
        """The store and repository of a reference; a reference with neither tag nor digest means ``latest``."""
        reference = Reference.parse(text)
        store = self.store(reference.registry, side)
        reference = store.reference(reference)
        if not reference.selector:
            reference = replace(reference, tag=DEFAULT_TAG)
        return store, reference, store.target(reference)

    def resolve(self, text: str) -> tuple[Store, Reference, Target, Descriptor]:
        """As ``target``, with the manifest that the reference names now.

        :raises NotFound: it names none.
        """
        store, reference, target = self.target(text)
        return store, reference, target, target.resolve(reference.selector)

    def destination(
        self, text: str, side: str = "", *, default: tuple[str, ...]
    ) -> tuple[Store, Reference, Target, tuple[str, ...]]:
        """The repository of ``repository[:tag[,tag...]]`` and the tags to set in it.

        :param default: the tags if ``text`` names none.
        :raises InvalidReference: it names a digest, which cannot be chosen.
        """
        name, tags = split_reference(text)
        reference = Reference.parse(name)
        store = self.store(reference.registry, side)
        reference = store.reference(reference)
        return store, reference, store.target(reference), tags or default

    def progress(self) -> AbstractContextManager[ProgressHook]:
        """Shows progress on standard error: a bar on a terminal, lines elsewhere, nothing when quiet."""
        from airflow_provider_kitops.oci import progress

        if self._options.quiet:
            return nullcontext(lambda step: None)
        if sys.stderr.isatty():
            return progress.bar(stream=sys.stderr)
        logger.setLevel(logging.INFO)
        return progress.lines(logger)

    def note(self, text: str) -> None:
        """Say something on standard error, unless quiet."""
        if not self._options.quiet:
            sys.stderr.write(text + "\n")

    def answer(self, data: Mapping[str, Any], text: str) -> None:
        """Print the result: ``data`` as one JSON object with ``--json``, else ``text``."""
        out = json.dumps(data, ensure_ascii=False, allow_nan=False) if self._options.json else text
        sys.stdout.write("\n".join(shown(line) for line in out.rstrip("\n").split("\n")) + "\n")


def spoken(answer: Mapping[str, Any]) -> str:
    """The reference of an answer, for people: what has no name goes by its digest."""
    return str(answer["reference"]).removeprefix(f"{UNNAMED}@")


def shown(text: str) -> str:
    """``text`` in one line, what a terminal would obey written as JSON does: ``\\u001b``.

    JSON stays what it was.
    """
    return _UNSHOWN.sub(lambda found: json.dumps(found[0])[1:-1], text)

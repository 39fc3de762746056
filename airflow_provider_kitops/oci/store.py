"""Where a connection's repositories are: one registry, or the local layout."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidReference, StorageError
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.oci.tagging import DEFAULT_MUTABLE_TAGS
from airflow_provider_kitops.oci.target import Target

if TYPE_CHECKING:
    from airflow_provider_kitops.oci.registry import Registry


@dataclass(frozen=True)
class StoreConfig:
    """All that is needed to reach a store.

    :param registry: ``host[:port]``; empty means the local layout.
    :param layout: root of the local layout; None means ``default_layout()``.
    :param namespace: prefix of repositories that are named without a registry.
    :param username: for basic authentication, or the token service.
    :param password: its password.
    :param identity_token: refresh token for the token service (OAuth2), instead of a password.
    :param docker_config: Docker's ``config.json`` (or its directory) to take credentials from when none are given
        here; None means ``$DOCKER_CONFIG``, else ``~/.docker``.
    :param plain_http: speak HTTP instead of HTTPS.
    :param ca_bundle: certificates to trust instead of the system's.
    :param client_cert: certificate for mutual TLS.
    :param client_key: its key.
    :param proxy: URL of an HTTP proxy; empty means what the environment says.
    :param concurrency: blobs that are transferred at once.
    :param mutable_tags: patterns of the tags that may be moved.
    """

    registry: str = ""
    layout: Path | None = None
    namespace: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    docker_config: Path | None = None
    plain_http: bool = False
    ca_bundle: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    proxy: str = field(default="", repr=False)
    concurrency: int = 5
    mutable_tags: tuple[str, ...] = DEFAULT_MUTABLE_TAGS

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise InvalidInput(f"concurrency is {self.concurrency}; it must be 1 or more.")


def default_layout() -> Path:
    """``$MODELKIT_LAYOUT``, else the user's data directory (XDG base directory specification)."""
    if chosen := os.environ.get("MODELKIT_LAYOUT"):
        return Path(chosen)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "airflow-provider-kitops" / "layout"


class Store:
    """Opens the repositories that references name, and refuses those of other registries. Thread-safe."""

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        self._registry: Registry | None = None
        self._lock = threading.Lock()

    def reference(self, text: str | Reference) -> Reference:
        """``text`` with this store's registry and namespace filled in. Doing it twice changes nothing.

        :raises InvalidReference: malformed, or of another registry; nothing has been sent then.
        """
        reference = Reference.parse(text) if isinstance(text, str) else text
        if reference.registry == self.config.registry:
            return reference
        if reference.registry:
            raise InvalidReference(
                f"{reference} is in another registry than {self.config.registry or 'the local layout'}.",
                hint="Leave the registry out, or use a connection to that registry.",
            )
        return replace(reference, registry=self.config.registry, repository=self._prefixed(reference.repository))

    def target(self, reference: str | Reference) -> Target:
        """The repository of ``reference``.

        :raises InvalidReference: as ``reference``.
        """
        qualified = self.reference(reference)
        if self.config.registry:
            return self._client().repository(qualified.repository)
        return Layout(self._root, self._prefixed(qualified.repository))

    def resolve(self, reference: str | Reference) -> tuple[Reference, Descriptor]:
        """What ``reference`` names now, pinned to its digest.

        :raises InvalidReference: neither tag nor digest.
        :raises NotFound: there is no such manifest.
        """
        qualified = self.reference(reference)
        if not qualified.selector:
            raise InvalidReference(f"{qualified} has neither a tag nor a digest.", hint="Write repository:tag.")
        descriptor = self.target(qualified).resolve(qualified.selector)
        return qualified.at(descriptor.digest), descriptor

    def repositories(self) -> list[str]:
        """All repositories, sorted, as references would name them.

        :raises Forbidden, NotFound: the registry does not list its repositories.
        """
        if self.config.registry:
            found = self._client().repositories()
        else:
            found = [
                str(marker.parent.relative_to(self._root))
                for marker in self._root.rglob("oci-layout")
                if marker.is_file()
            ]
        prefix = f"{self.config.namespace}/" if self.config.namespace else ""
        return sorted(name.removeprefix(prefix) for name in found if name.startswith(prefix))

    def check(self) -> str:
        """Make one real call with the credentials, or try to write to the layout; says what it found.

        :raises KitopsError: what stands in the way.
        """
        if self.config.registry:
            return self._client().check()
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._root):
                pass
        except OSError as error:
            raise StorageError(
                f"The local layout {self._root} cannot be written to: {error.strerror or error}.",
                hint="Check its permissions, or choose another directory.",
            ) from error
        return f"The local layout {self._root} is writable."

    def close(self) -> None:
        """Close the connections to the registry."""
        with self._lock:
            if self._registry:
                self._registry.close()
                self._registry = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    @property
    def _root(self) -> Path:
        return self.config.layout or default_layout()

    def _prefixed(self, repository: str) -> str:
        return f"{self.config.namespace}/{repository}" if self.config.namespace else repository

    def _client(self) -> Registry:
        # Nobody who stays local pays for importing an HTTP client.
        from airflow_provider_kitops.oci.registry import Registry

        with self._lock:
            if self._registry is None:
                self._registry = Registry(self.config)
            return self._registry

"""All repositories of one place, a registry or the local layout: what an Airflow connection stands for."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from airflow_provider_kitops.oci import _files
from airflow_provider_kitops.oci._endpoint import Endpoint
from airflow_provider_kitops.oci._http import HttpSettings, RegistryClient
from airflow_provider_kitops.oci._paging import pages, texts
from airflow_provider_kitops.oci.credentials import Credentials, find_credentials
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.disk import storage_errors
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidReference, NotFound, StorageError
from airflow_provider_kitops.oci.layout import RESERVED_NAMES, Layout
from airflow_provider_kitops.oci.reference import UNNAMED, Reference, shown
from airflow_provider_kitops.oci.repository import Repository
from airflow_provider_kitops.oci.tagging import DEFAULT_MUTABLE_TAGS
from airflow_provider_kitops.oci.target import Target

__all__ = ["DEFAULT_MUTABLE_TAGS", "Store", "StoreConfig", "default_layout"]

_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def default_layout() -> Path:
    """Where the local layout is: ``$MODELKIT_LAYOUT``, else below ``$XDG_DATA_HOME`` or ``~/.local/share``.

    :raises InvalidInput: there is no home directory, and it would be there.
    """
    named = os.environ.get("MODELKIT_LAYOUT")
    if named:
        return _expanded(Path(named))
    data = os.environ.get("XDG_DATA_HOME")
    # The base directory specification has relative paths ignored.
    base = Path(data) if data and Path(data).is_absolute() else _expanded(Path("~/.local/share"))
    return base / "airflow-provider-kitops" / "layout"


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # no HOME, and the user is in no list of users, as in many a container
        raise InvalidInput(
            f"The local layout would be at {path}, and it is not known where the home directory is.",
            hint="Set MODELKIT_LAYOUT to a whole path.",
        ) from None


@dataclass(frozen=True)
class StoreConfig:
    """How to reach a store. Secrets do not show in its ``repr``.

    :param registry: ``host[:port]``; empty for the local layout.
    :param layout: root of the local layout; by default ``default_layout()``.
    :param namespace: repository prefix for references that name no registry.
    :param username: user at the registry. Without credentials here, Docker's are used.
    :param password: the user's password or access token.
    :param identity_token: token to be exchanged at the registry's token service, instead of user and password.
    :param docker_config: Docker's config file or its directory; by default the usual one.
    :param plain_http: http instead of https.
    :param ca_bundle: certificates that are trusted instead of the usual ones.
    :param client_cert: certificate that we show to the registry.
    :param client_key: its key, if that is in a file of its own.
    :param proxy: address of a proxy; by default what the environment says.
    :param concurrency: transfers at a time.
    :param mutable_tags: patterns (``fnmatch``) of the tags that may move from one manifest to another.
    :param token_hosts: hosts of token services outside the registry's domain that may be told the credentials;
        without scheme and port.
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
    token_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise InvalidInput(f"concurrency is {self.concurrency}, and must be 1 or more.")
        object.__setattr__(self, "registry", self.registry.strip().lower())
        object.__setattr__(self, "namespace", self.namespace.strip("/"))
        if self.registry:
            _check_registry(self.registry)
        if self.namespace:
            _check_namespace(self.namespace)
        object.__setattr__(self, "token_hosts", tuple(_token_host(host) for host in self.token_hosts))
        if self.password and not self.username:
            raise InvalidInput("A password without a user was given.", hint="Give the user, or an identity token.")

    def credentials(self) -> Credentials:
        """The credentials that are given here; without any, those that Docker's config file or a helper knows.

        :raises InvalidInput: the config file cannot be read, or the helper fails.
        """
        given = Credentials(self.username, self.password, self.identity_token)
        return given or find_credentials(self.registry, self.docker_config)


def _check_registry(registry: str) -> None:
    try:
        parsed = Reference.parse(f"{registry}/x")
    except InvalidReference:
        parsed = None
    if parsed is None or parsed.registry != registry:
        bare = registry.replace("-", "").isalnum()
        raise InvalidInput(
            f"{shown(registry)!r} is no registry.",
            hint=f"Write {registry}:80 or {registry}:443."
            if bare
            else "Write host[:port], without scheme, path and credentials; those have settings of their own.",
        )


def _token_host(host: str) -> str:
    """The host as addresses name it: in lower case, an IPv6 address without brackets."""
    name = host.strip().lower()
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        if not _HOST.fullmatch(name):
            raise InvalidInput(
                f"token_hosts holds {shown(host)!r}, which is no host.",
                hint="Write auth.example.com, without scheme, port and path: https is used.",
            ) from None
    return bare


def _check_namespace(namespace: str) -> None:
    try:
        parsed = Reference.parse(f"localhost/{namespace}")
    except InvalidReference:
        parsed = None
    if parsed is None or parsed.repository != namespace or RESERVED_NAMES.intersection(namespace.split("/")):
        raise InvalidInput(f"{shown(namespace)!r} is no namespace.", hint="Write lower-case names with / between them.")


class Store:
    """The repositories of a registry or of the local layout. May be used from several threads.

    Nothing is sent, read or written before it is needed.

    :param config: how to reach it.
    :raises InvalidInput: a file of the configuration cannot be read.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        # A registry needs no home directory.
        self._root = Path() if config.registry else _expanded(config.layout or default_layout())
        self._targets: dict[str, Target] = {}
        self._lock = threading.Lock()
        self._client = self._make_client() if config.registry else None

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self.config.registry or str(self._root)!r})"

    def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            self._client.close()

    def reference(self, text: str | Reference) -> Reference:
        """A reference in full: with this store's registry and, if it named none, below its namespace.

        In the local layout it stays as it is; there the namespace is only a directory. Doing it twice is the same.

        :raises InvalidReference: malformed, or of another registry than this store's.
        """
        reference = Reference.parse(text) if isinstance(text, str) else text
        registry = self.config.registry
        if not reference.registry:
            if not registry:
                return reference
            if reference.repository == UNNAMED:
                raise InvalidReference(
                    f"{reference.digest or UNNAMED} names no repository, and in {registry} everything is in one.",
                    hint=f"Write {registry}/repository@sha256:….",
                )
            prefix = f"{self.config.namespace}/" if self.config.namespace else ""
            return Reference(registry, prefix + reference.repository, reference.tag, reference.digest)
        if reference.registry.lower() != registry:
            here = f"the registry {registry}" if registry else "the local layout"
            raise InvalidReference(
                f"{reference} is at {reference.registry}, and this store is {here}.",
                hint="Use the connection of that registry, or leave the registry out of the reference.",
            )
        return Reference(registry, reference.repository, reference.tag, reference.digest)

    def name_elsewhere(self, reference: Reference) -> str:
        """``repository[:tag]`` as another store takes it, which puts a registry and a namespace of its own before it.

        :param reference: in full, as ``reference`` gives it.
        """
        prefix = f"{self.config.namespace}/" if self.config.namespace else ""
        return reference.repository.removeprefix(prefix) + (f":{reference.tag}" if reference.tag else "")

    def target(self, reference: str | Reference) -> Target:
        """The repository of a reference, whether it exists or not.

        :raises InvalidReference: malformed, or of another registry than this store's.
        """
        repository = self.reference(reference).repository
        with self._lock:
            if repository not in self._targets:
                self._targets[repository] = self._open(repository)
            return self._targets[repository]

    def resolve(self, reference: str | Reference) -> tuple[Reference, Descriptor]:
        """The manifest that a reference names now, and the reference pinned to it.

        :raises NotFound: it names none.
        :raises InvalidReference: malformed, without tag and digest, or of another registry.
        """
        full = self.reference(reference)
        if not full.selector:
            raise InvalidReference(f"{full} names a repository, not a manifest.", hint="Add :tag or @sha256:….")
        descriptor = self.target(full).resolve(full.selector)
        return full.at(descriptor.digest), descriptor

    def repositories(self) -> list[str]:
        """The names of all repositories below the namespace, as ``reference`` takes them; sorted.

        :raises Forbidden: the registry does not list its repositories to us.
        """
        if self._client is None:
            return sorted(_layouts(self._directory, self._directory))
        doing = "list the repositories"
        found: set[str] = set()
        for _, page in pages(
            self._client, "/v2/_catalog", doing=doing, scope="registry:catalog:*", params={"n": "1000"}
        ):
            found.update(texts(page, "repositories", doing))
        prefix = f"{self.config.namespace}/" if self.config.namespace else ""
        return sorted(name.removeprefix(prefix) for name in found if name.startswith(prefix))

    def check_repository(self, reference: str | Reference) -> None:
        """Look whether a repository exists, which an empty list of its tags does not tell.

        :raises NotFound: there is no such repository; a registry may say so of one without any tag, too.
        :raises InvalidReference: malformed, or of another registry than this store's.
        """
        repository = self.reference(reference).repository
        if self._client is not None:
            at = Endpoint(self._client, repository)
            doing = f"list the tags of {repository}"
            self._client.request("GET", at.path("tags", "list"), doing=doing, scope=at.pull, params={"n": "1"}).close()
            return
        path = self._directory / repository
        with storage_errors("look at", path):
            exists = (path / "index.json").is_file()
        if not exists:
            hint = f"It would be {path}."
            if "." in repository.partition("/")[0] or repository == "localhost":
                hint += f" For a whole registry write {repository.partition('/')[0]}/."
            raise NotFound(f"There is no repository {repository} in the local layout.", hint=hint)

    def check(self) -> str:
        """Make one real call, with the credentials, and say in a sentence what came of it.

        :raises KitopsError: of the kind that says what is wrong.
        """
        if self._client is None:
            return self._check_layout()
        try:
            self._client.request("GET", "/v2/", doing="use the registry API", scope="").close()
        except NotFound as error:
            hint = "Something answers there, but no OCI registry: check host and port."
            raise NotFound(error.message, hint=hint) from error
        who = self._client.auth.used
        if who is None:
            return f"The registry {self.config.registry} answers and asks for no credentials."
        return f"The registry {self.config.registry} answers and accepts {who}."

    def _check_layout(self) -> str:
        directory = self._directory
        with storage_errors("look at", directory):
            exists = directory.exists()
        if exists:
            with _files.Temporary(directory, directory):
                pass  # removed again
            return f"The local layout {directory} can be written."
        above = next(path for path in directory.parents if path.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise StorageError(
                f"The local layout {directory} does not exist and cannot be made in {above}.",
                hint="Name another directory, or give the user that runs this permission to write there.",
            )
        return f"The local layout {directory} does not exist yet and will be made."

    @property
    def layout(self) -> Path | None:
        """The root of the local layout; None for a registry."""
        return None if self.config.registry else self._root

    @property
    def missing_layout(self) -> Path | None:
        """Where the local layout will be, if nothing is there yet; None for a registry."""
        if self._client is not None:
            return None
        with storage_errors("look at", self._directory):
            return None if self._directory.exists() else self._directory

    @property
    def _directory(self) -> Path:
        return self._root / self.config.namespace if self.config.namespace else self._root

    def _open(self, repository: str) -> Target:
        if self._client is None:
            return Layout(self._directory, repository)
        return Repository(self.config.registry, repository, self._client)

    def _make_client(self) -> RegistryClient:
        config = self.config
        for path in (config.ca_bundle, config.client_cert, config.client_key):
            if path is not None:
                _check_readable(path, config.registry, directory=path == config.ca_bundle)
        settings = HttpSettings(
            plain_http=config.plain_http,
            ca_bundle=config.ca_bundle,
            client_cert=config.client_cert,
            client_key=config.client_key,
            proxy=config.proxy,
            connections=2 * config.concurrency,
            token_hosts=config.token_hosts,
        )

        return RegistryClient(config.registry, settings, config.credentials)


def _check_readable(path: Path, registry: str, *, directory: bool) -> None:
    """Look whether a file for TLS can be opened; requests would find out in the middle of the first request.

    :param directory: whether it may be a directory, as OpenSSL takes one of certificates to trust.
    """
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        if path.is_dir() and not directory:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise InvalidInput(
            f"Cannot read {path}, which is to be used for TLS with {registry}: {error.strerror}."
        ) from error


def _layouts(directory: Path, root: Path) -> Iterator[str]:
    """The layouts below a directory: one may hold others, next to its own files."""
    with storage_errors("read", directory):
        try:
            below = sorted(path for path in directory.iterdir() if _may_hold_layouts(path))
        except FileNotFoundError:
            return
    if directory != root and (directory / "index.json").is_file():
        yield directory.relative_to(root).as_posix()
    for path in below:
        if path.name not in RESERVED_NAMES:
            yield from _layouts(path, root)


def _may_hold_layouts(path: Path) -> bool:
    # Links are not followed: one that leads back up would never end.
    return path.is_dir() and not path.is_symlink() and not path.name.startswith(".")

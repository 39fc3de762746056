"""The smallest interface that every store of artifacts honours: the local layout and the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol

from airflow_provider_kitops.oci.descriptor import Descriptor

#: Bytes to store: in memory, or a function that begins the same stream of chunks anew each time it is called,
#: so that an upload which broke in the middle can be sent again. A layout takes up a broken download where it broke if
#: the source is an ``oci.content.Reopened``.
Source = bytes | Callable[[], Iterable[bytes]]


class Reader(Protocol):
    """A stream whose digest and size have been checked once ``read`` has returned ``b""``.

    A mismatch raises ``DigestMismatch`` from ``read`` instead of the end of the stream, so a consumer that reads
    to the end never takes wrong bytes for whole ones.
    """

    def read(self, size: int = -1, /) -> bytes: ...
    def close(self) -> None: ...
    def __enter__(self) -> Reader: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Target(Protocol):
    """One repository: content by digest, and tags.

    Manifests and blobs are told apart by media type (``Descriptor.is_manifest``), as registries keep them apart.
    All methods raise the errors of ``oci.errors`` and may be called from several threads.
    """

    @property
    def name(self) -> str:
        """``registry/repository``, or the repository alone in a local layout: for messages and references."""
        ...

    def resolve(self, reference: str) -> Descriptor:
        """The manifest that a tag or digest names. Raises ``NotFound``."""
        ...

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether the content is here."""
        ...

    def fetch(self, descriptor: Descriptor) -> Reader:
        """A verifying stream of the content. Raises ``NotFound``."""
        ...

    def push(self, content: Descriptor | str, source: Source) -> Descriptor:
        """Store ``source`` and return its descriptor.

        With a descriptor the bytes must match it (``DigestMismatch`` otherwise, and nothing is stored); with a
        media type the digest is found while streaming. Content that is there already is not sent again when its
        descriptor is known. A manifest with a ``subject`` is listed by ``referrers`` afterwards.
        """
        ...

    def tag(self, descriptor: Descriptor, tag: str) -> None:
        """Make ``tag`` name this manifest, byte for byte as it is stored. Raises ``NotFound``."""
        ...

    def untag(self, tag: str) -> None:
        """Remove a tag and leave the manifest. Raises ``NotFound``."""
        ...

    def tags(self) -> list[str]:
        """All tags, sorted; empty for a repository that does not exist."""
        ...

    def referrers(self, descriptor: Descriptor, artifact_type: str | None = None) -> list[Descriptor]:
        """Manifests whose ``subject`` is this one, each with its artifact type and annotations."""
        ...

    def delete(self, descriptor: Descriptor) -> None:
        """Delete a manifest with all its tags, or a blob. Raises ``NotFound``."""
        ...


@dataclass(frozen=True)
class Progress:
    """One step forward in a long piece of work, handed to a ``ProgressHook``.

    :param action: what is being done.
    :param name: what it is done to (a path, or a short digest).
    :param done: bytes so far.
    :param total: bytes in all, where known.
    """

    action: Literal["pack", "upload", "download", "unpack", "skip", "mount"]
    name: str
    done: int
    total: int | None = None


#: Called from worker threads, often: keep it quick.
ProgressHook = Callable[[Progress], None]

#: One tag, several, or none.
Tags = str | Sequence[str] | None

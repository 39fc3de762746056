"""Streams that prove their digest, and the one way to read a manifest into memory."""

from __future__ import annotations

import hashlib
from types import TracebackType
from typing import BinaryIO, Self

from airflow_provider_kitops.oci.descriptor import MAX_MANIFEST_SIZE, Descriptor
from airflow_provider_kitops.oci.errors import DigestMismatch, LimitExceeded
from airflow_provider_kitops.oci.target import Target


class VerifyingReader:
    """Passes bytes through and raises ``DigestMismatch`` instead of ending when they are not the descriptor's.

    :param stream: where the bytes come from; closed with the reader.
    :param descriptor: what they must be.
    :param name: where they are, for the message.
    """

    def __init__(self, stream: BinaryIO, descriptor: Descriptor, name: str) -> None:
        self._stream = stream
        self._descriptor = descriptor
        self._name = name
        self._hash = hashlib.new(descriptor.digest.partition(":")[0])
        self._count = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, ``b""`` at the end.

        :raises DigestMismatch: too many bytes, or at the end too few or the wrong ones.
        """
        data = self._stream.read(size)
        self._hash.update(data)
        self._count += len(data)
        if self._count > self._descriptor.size:
            raise self._mismatch(f"more than the {self._descriptor.size} bytes of its descriptor")
        if not data or size < 0:
            if self._count != self._descriptor.size:
                raise self._mismatch(f"{self._count} bytes instead of {self._descriptor.size}")
            algorithm = self._descriptor.digest.partition(":")[0]
            if (found := f"{algorithm}:{self._hash.hexdigest()}") != self._descriptor.digest:
                raise self._mismatch(f"the digest {found}")
        return data

    def close(self) -> None:
        """Close the stream; nothing more is checked."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _mismatch(self, what: str) -> DigestMismatch:
        return DigestMismatch(
            f"{self._descriptor.digest} in {self._name} has {what}.",
            hint="The stored copy is damaged or was tampered with; push it again from its source.",
        )


def read_manifest(target: Target, descriptor: Descriptor) -> bytes:
    """All bytes of a manifest, config or other small content, verified.

    :raises LimitExceeded: larger than 4 MiB.
    :raises NotFound, DigestMismatch: as ``Target.fetch``.
    """
    if descriptor.size > MAX_MANIFEST_SIZE:
        raise LimitExceeded(
            f"{descriptor.digest} in {target.name} has {descriptor.size} bytes;"
            f" no more than {MAX_MANIFEST_SIZE} are read into memory."
        )
    with target.fetch(descriptor) as reader:
        return reader.read()

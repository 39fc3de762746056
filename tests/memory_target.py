"""A Target in memory, for tests that look at what was sent; it leaves out subjects, and nothing survives it."""

from __future__ import annotations

import io
import threading

from airflow_provider_kitops.oci.content import VerifyingReader, chunks
from airflow_provider_kitops.oci.descriptor import Descriptor, digest_of, is_digest
from airflow_provider_kitops.oci.errors import DigestMismatch, NotFound
from airflow_provider_kitops.oci.target import Reader, Source


class MemoryTarget:
    """Keeps content by digest, and the media types that were sent, in order."""

    name = "memory/kit"

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.descriptors: dict[str, Descriptor] = {}
        self.named: dict[str, Descriptor] = {}
        self.sent: list[str] = []
        self._lock = threading.Lock()

    def resolve(self, reference: str) -> Descriptor:
        found = self.descriptors if is_digest(reference) else self.named
        if reference not in found:
            raise NotFound(f"There is no {reference} in {self.name}.")
        return found[reference]

    def exists(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self.content

    def fetch(self, descriptor: Descriptor) -> Reader:
        if descriptor.digest not in self.content:
            raise NotFound(f"There is no {descriptor.digest} in {self.name}.")
        return VerifyingReader(io.BytesIO(self.content[descriptor.digest]), descriptor, self.name)

    def push(self, content: Descriptor | str, source: Source) -> Descriptor:
        data = b"".join(chunks(source))
        media_type = content if isinstance(content, str) else content.media_type
        descriptor = Descriptor.of(media_type, data)
        if isinstance(content, Descriptor) and content != descriptor:
            raise DigestMismatch(f"Got {descriptor.digest} instead of {content.digest}.")
        with self._lock:
            self.sent.append(media_type)
            self.content[descriptor.digest] = data
            if descriptor.is_manifest:
                self.descriptors[descriptor.digest] = descriptor
        return descriptor

    def tag(self, descriptor: Descriptor, tag: str) -> None:
        self.named[tag] = self.resolve(descriptor.digest)

    def untag(self, tag: str) -> None:
        del self.named[tag]

    def tags(self) -> list[str]:
        return sorted(self.named)

    def referrers(self, descriptor: Descriptor, artifact_type: str | None = None) -> list[Descriptor]:
        raise NotImplementedError

    def delete(self, descriptor: Descriptor) -> None:
        del self.content[descriptor.digest]

    def replace(self, digest: str, data: bytes) -> None:
        """Tamper: other bytes under the same digest."""
        assert digest != digest_of(data)
        self.content[digest] = data

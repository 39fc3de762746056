"""Reading content to its end, checked against the descriptor that names it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, runtime_checkable

from airflow_provider_kitops.oci.descriptor import MAX_MANIFEST_SIZE, Descriptor
from airflow_provider_kitops.oci.errors import DigestMismatch, InvalidInput, LimitExceeded
from airflow_provider_kitops.oci.target import Source, Target

#: Bytes moved at a time: large enough that Python's cost per chunk does not show, small enough to stay flat.
CHUNK = 1024 * 1024


# Content from which on it is hashed in a thread.
_WORTH_A_THREAD = 8 * 1024 * 1024


class Readable(Protocol):
    """Where a ``VerifyingReader`` takes its bytes from."""

    def read(self, size: int = -1, /) -> bytes: ...
    def close(self) -> None: ...


@runtime_checkable
class FetchesFrom(Protocol):
    """A target that can give the rest of a blob."""

    def fetch_from(self, descriptor: Descriptor, offset: int) -> Readable:
        """The bytes from ``offset`` on, not verified. Raises ``NotFound``."""
        ...


class Verifier:
    """Checks a stream of bytes against a digest and size (image specification 1.1, "Verification").

    :param descriptor: what the bytes must be.
    :param where: repository, for messages.
    """

    def __init__(self, descriptor: Descriptor, where: str) -> None:
        self._descriptor = descriptor
        self._where = where
        self._hash = Hasher(descriptor.digest)
        self.size = 0

    def update(self, data: bytes) -> None:
        """Take the next bytes.

        :raises DigestMismatch: there are more than the descriptor says.
        """
        self.size += len(data)
        if self.size > self._descriptor.size:
            raise self._mismatch(f"more than {self._descriptor.size} bytes")
        self._hash.update(data)

    def finish(self) -> None:
        """Check the whole.

        :raises DigestMismatch: size or digest differ.
        """
        if self.size != self._descriptor.size:
            raise self._mismatch(f"{self.size} bytes instead of {self._descriptor.size}")
        found = self._hash.hexdigest()
        if found != self._descriptor.digest.partition(":")[2]:
            raise self._mismatch(f"bytes whose digest is {self._hash.name}:{found}")

    def _mismatch(self, found: str) -> DigestMismatch:
        return DigestMismatch(
            f"Content of {self._descriptor.digest} in {self._where} is not what its descriptor names: {found}.",
            hint="Nothing of it was kept. If it happens again, the stored content or its source is damaged.",
        )


class VerifyingReader:
    """A ``Reader`` over any stream: the end is reported only once digest and size have been found right.

    :param raw: the stream; closed with this reader.
    :param descriptor: what the stream must be.
    :param where: repository, for messages.
    """

    def __init__(self, raw: Readable, descriptor: Descriptor, where: str) -> None:
        self._raw = raw
        self._verifier = Verifier(descriptor, where)
        self._verified = False

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, all that are left if negative, ``b""`` at the verified end.

        :raises DigestMismatch: the stream is not what the descriptor names.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        if size == 0 or self._verified:
            return b""
        data = self._raw.read(size)
        if data:
            self._verifier.update(data)
        else:
            self._verifier.finish()
            self._verified = True
        return data

    def close(self) -> None:
        """Release the file or connection."""
        self._raw.close()

    def __enter__(self) -> VerifyingReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Hasher:
    """A hash that is computed beside what else is done with large content: sending and writing it take as long.

    :param digest: a digest, or its algorithm alone.
    """

    def __init__(self, digest: str) -> None:
        self._hash = hashlib.new(digest.partition(":")[0])
        self._size = 0
        # Of its own, so that it ends with this object, and no process that is forked waits for a thread it has not.
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None

    @property
    def name(self) -> str:
        """The algorithm."""
        return self._hash.name

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._settle()
        self._size += len(data)
        if self._size < _WORTH_A_THREAD:
            self._hash.update(data)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._last = self._thread.submit(self._hash.update, data)

    def hexdigest(self) -> str:
        """Of all bytes so far."""
        self._settle()
        return self._hash.hexdigest()

    def _settle(self) -> None:
        if self._last is not None:
            self._last.result()
            self._last = None


def chunks(source: Source) -> Iterator[bytes]:
    """The bytes of a source from the beginning, empty chunks left out."""
    if isinstance(source, bytes):
        parts: Iterable[bytes] = (source[at : at + CHUNK] for at in range(0, len(source), CHUNK))
    else:
        parts = source()
    return (part for part in parts if part)


def read_small(source: Source, what: str, limit: int = MAX_MANIFEST_SIZE) -> bytes:
    """The whole of a source that has to fit in memory.

    :param what: what it is, for the message.
    :raises LimitExceeded: it is longer than ``limit`` bytes.
    """
    data = bytearray()
    for chunk in chunks(source):
        data += chunk
        if len(data) > limit:
            raise too_large(what, limit)
    return bytes(data)


def read(target: Target, descriptor: Descriptor, limit: int = MAX_MANIFEST_SIZE) -> bytes:
    """The verified bytes of a manifest, config or other small blob.

    :param limit: largest size that is read into memory, in bytes.
    :raises LimitExceeded: the content is larger.
    :raises NotFound: it is not in ``target``.
    :raises DigestMismatch: it is not what ``descriptor`` names.
    """
    if descriptor.size > limit:
        raise too_large(f"{descriptor.digest} in {target.name}", limit)
    with target.fetch(descriptor) as reader:
        return b"".join(iter(lambda: reader.read(CHUNK), b""))


class Reopened:
    """A ``Source`` that reads the content anew from ``target`` each time that it is asked to, from any place in it.

    :param on_chunk: called with the bytes read so far, starting anew whenever the reading does.
    :ivar moved: bytes that the last reading took from ``target``.
    """

    def __init__(self, target: Target, descriptor: Descriptor, on_chunk: Callable[[int], None] | None = None) -> None:
        self.moved = 0
        self._target = target
        self._descriptor = descriptor
        self._on_chunk = on_chunk

    def __call__(self) -> Iterator[bytes]:
        """All of it, verified."""
        with self._target.fetch(self._descriptor) as reader:
            yield from self._chunks(reader, 0)

    def at(self, offset: int) -> Iterator[bytes]:
        """The rest from ``offset`` on, which nobody has verified."""
        if not offset or not isinstance(self._target, FetchesFrom):
            left = offset
            for chunk in self():
                if len(chunk) > left:
                    yield chunk[left:] if left else chunk
                left = max(0, left - len(chunk))
            return
        reader = self._target.fetch_from(self._descriptor, offset)
        try:
            yield from self._chunks(reader, offset)
        finally:
            reader.close()

    def _chunks(self, reader: Readable, done: int) -> Iterator[bytes]:
        self.moved = 0
        while data := reader.read(CHUNK):
            done += len(data)
            self.moved += len(data)
            if self._on_chunk is not None:
                self._on_chunk(done)
            yield data


def too_large(what: str, limit: int) -> LimitExceeded:
    """The error for content that may not be read into memory."""
    return LimitExceeded(f"{what} is larger than {limit} bytes, the most that is read into memory.")


def check_descriptor(content: Descriptor | str) -> None:
    """Refuse an empty media type, which no registry or layout could list.

    :raises InvalidInput: there is none.
    """
    media_type = content if isinstance(content, str) else content.media_type
    if not media_type:
        raise InvalidInput("Content to be stored needs a media type.")

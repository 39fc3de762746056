"""Compressed layers: gzip (RFC 1952) and Zstandard (RFC 8878), written and read as streams.

Nobody can reproduce the compressed bytes of another compressor; what is compared across tools is the diffId, the digest
of the content before compression.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import zstandard

from airflow_provider_kitops.modelkit.forms import Compression
from airflow_provider_kitops.oci.errors import VerificationFailed

_CHUNK = 1024 * 1024
#: What a Zstandard frame may make a reader keep, in bytes; the limit of the zstd command too.
_MAX_WINDOW = 128 * 1024 * 1024
_GZIP_LEVELS = {"gzip": 6, "gzip-fastest": 1}

Read = Callable[[int], bytes]


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: memoryview, /) -> bytes: ...


#: How to start one, and how many bytes to give it at once: all that these expand to is in memory at once. Four bytes of
#: Zstandard may mean 128 KiB (a block of one repeated byte), so that is at most 32 MiB; one byte of gzip means 1032 at
#: most, so 4 MiB. What is left of a piece is copied at the end of each member or frame, and these may have 20 bytes.
_DECOMPRESSORS: dict[str, tuple[Callable[[], _Decompressor], int]] = {
    "gzip": (lambda: zlib.decompressobj(wbits=31), 4 * 1024),
    "zstd": (lambda: zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj(), 1024),
}


def compressed(chunks: Iterable[bytes], compression: Compression, on_digest: Callable[[str], None]) -> Iterator[bytes]:
    """Compress a stream, with headers that hold neither name nor time.

    :param on_digest: told the digest of what went in, once all of it has.
    """
    compressor: _Compressor
    if compression == "zstd":
        compressor = zstandard.ZstdCompressor().compressobj()
    else:
        compressor = zlib.compressobj(level=_GZIP_LEVELS[compression], wbits=31)
    hashing = hashlib.sha256()
    for chunk in chunks:
        hashing.update(chunk)
        if data := compressor.compress(chunk):
            yield data
    yield compressor.flush()
    on_digest(f"sha256:{hashing.hexdigest()}")


class Decompressed:
    """The content of a compressed stream, hashed as it comes out.

    :param read: gives up to so many bytes, and empty bytes only at the end.
    :param compression: ``gzip`` or ``zstd``.
    :param label: what to call the stream in messages.
    """

    def __init__(self, read: Read, compression: str, label: str) -> None:
        self._pieces = _pieces(read, compression, label)
        self._hash = hashlib.sha256()
        self._left = memoryview(b"")

    @property
    def digest(self) -> str:
        """Digest of what has been read."""
        return f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end.

        :raises VerificationFailed: the stream is damaged, ends early, or needs too much memory.
        """
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        data = bytes(self._left[:size])
        self._left = self._left[size:]
        self._hash.update(data)
        return data


def _pieces(read: Read, compression: str, label: str) -> Iterator[bytes]:
    """Several members (gzip) or frames (Zstandard) are allowed, one after the other."""
    start, size = _DECOMPRESSORS[compression]
    pending = memoryview(read(_CHUNK))
    while True:
        decompressor = start()
        while not decompressor.eof:
            pending = pending or memoryview(read(_CHUNK))
            if not pending:
                raise VerificationFailed(f"{label} ends in the middle of its {compression} stream.")
            given = pending[:size]
            try:
                data = decompressor.decompress(given)
            except (zlib.error, zstandard.ZstdError) as error:
                raise VerificationFailed(f"{label} cannot be decompressed as {compression}: {error}.") from error
            pending = pending[len(given) - len(decompressor.unused_data) :]
            if data:
                yield data
        pending = pending or memoryview(read(_CHUNK))
        if not pending:
            return

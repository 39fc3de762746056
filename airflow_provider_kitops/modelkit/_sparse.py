"""Sparse files in tar streams: the pieces that are stored, and where they belong; all else are holes, read as zeros.

GNU tar writes four forms (GNU tar manual, "Storing Sparse Files" and "Sparse Formats"; the PAX ones stand in extended
headers of POSIX.1-2001, pax):

========  =============================================================================================
old GNU   type ``S``; the map in the header and in blocks of 21 pieces that follow it
PAX 0.0   ``GNU.sparse.offset`` and ``GNU.sparse.numbytes``, again and again
PAX 0.1   ``GNU.sparse.map``, all numbers with commas between them
PAX 1.0   ``GNU.sparse.major`` and ``minor``; the map as lines before the content, in whole blocks
========  =============================================================================================
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from airflow_provider_kitops.modelkit._tarfields import BLOCK, number
from airflow_provider_kitops.oci.errors import LimitExceeded, VerificationFailed

#: Most pieces of one file; they need 1 MiB of memory.
MAX_PIECES = 65_536
_MAX_SIZE = 2**63 - 1
_PREFIX = "GNU.sparse."
_NUMBER = re.compile(rb"[0-9]{1,19}")
_OLD_GNU_MAGIC = b"ustar  \0"


class Hole(bytes):
    """The zeros of a hole, or of a part of it: who writes a file can leave them out."""


# Shorter holes take a block of the disk anyway.
_SHORTEST = 4096
_FULL = Hole(1024 * 1024)


class SparseFile(NamedTuple):
    """What a sparse file consists of, checked.

    :param size: bytes of the file, its holes included.
    :param stored: bytes of it that the stream has.
    :param pieces: offset and length of each piece in turn: in order, apart from each other, within the size.
    """

    size: int
    stored: int
    pieces: array[int]

    def content(self, take: Callable[[int], Iterator[bytes]]) -> Iterator[bytes]:
        """The file with its holes, in pieces of a mebibyte at most.

        :param take: gives the next so many bytes that are stored.
        """
        position = 0
        for offset, length in zip(self.pieces[::2], self.pieces[1::2], strict=True):
            yield from _zeros(offset - position)
            yield from take(length)
            position = offset + length
        yield from _zeros(self.size - position)


def _zeros(size: int) -> Iterator[bytes]:
    while size >= len(_FULL):
        yield _FULL
        size -= len(_FULL)
    if size:
        yield Hole(size) if size >= _SHORTEST else bytes(size)


def is_sparse(records: Mapping[str, bytes]) -> bool:
    """Whether an extended header says that the file is sparse."""
    return any(key.startswith(_PREFIX) for key in records)


def name_of(records: Mapping[str, bytes]) -> bytes:
    """The file's name: that in the header is made up, for programs that know nothing of sparse files; may be empty."""
    return records.get(f"{_PREFIX}name", b"")


def read_old_gnu(block: bytes, stored: int, take: Callable[[int], bytes], what: str) -> SparseFile:
    """The map of an entry of type ``S``.

    :param block: its header.
    :param stored: bytes that are stored, as the header says.
    :param take: gives the next so many bytes of the stream, which go on with the map if it is long.
    :param what: what to call the file in messages.
    :raises VerificationFailed: the map makes no sense.
    :raises LimitExceeded: it is too long.
    """
    if block[257:265] != _OLD_GNU_MAGIC:
        raise VerificationFailed(f"{what} is of type 'S', and its header is not one of GNU tar.")
    pieces = _Pieces(number(block[483:495], what), what)
    more = _table(pieces, block[386:483], what)
    while more:
        more = _table(pieces, take(BLOCK)[:505], what)
    return pieces.finish(stored)


def _table(pieces: _Pieces, table: bytes, what: str) -> bool:
    """Add the pieces of a table, 24 bytes each; whether another follows."""
    more = table[-1] != 0
    for start in range(0, len(table) - 1, 24):
        offset, length = table[start : start + 12], table[start + 12 : start + 24]
        if not length[0]:
            if more:
                raise VerificationFailed(f"{what} has a map of its holes that goes on after its end.")
            break
        pieces.add(number(offset, what), number(length, what))
    return more


def read_pax(records: Mapping[str, bytes], stored: int, take: Callable[[int], bytes], what: str) -> SparseFile:
    """The map of an entry whose extended header says that it is sparse; parameters and errors as above.

    :param stored: bytes that are stored, the map included if it is among them.
    """
    found = {key.removeprefix(_PREFIX): value for key, value in records.items() if key.startswith(_PREFIX)}
    version = found.get("major", b"0"), found.get("minor", b"0")
    if version == (b"1", b"0"):
        return _read_lines(_Pieces(_size(found, "realsize", "size", what=what), what), stored, take, what)
    if version not in ((b"0", b"0"), (b"0", b"1")):
        raise VerificationFailed(f"{what} is a sparse file of the unknown version {version[0]!r}.{version[1]!r}.")
    pieces = _Pieces(_size(found, "size", "realsize", what=what), what)
    numbers = [_decimal(text, what) for text in found["map"].split(b",")] if found.get("map") else []
    if len(numbers) != 2 * _size(found, "numblocks", what=what):
        raise VerificationFailed(f"{what} has a map of its holes that has not as many pieces as it says.")
    for offset, length in zip(numbers[::2], numbers[1::2], strict=True):
        pieces.add(offset, length)
    return pieces.finish(stored)


def _read_lines(pieces: _Pieces, stored: int, take: Callable[[int], bytes], what: str) -> SparseFile:
    """PAX 1.0: the number of pieces, then offset and length of each, a line for each number."""
    text, used = b"", 0

    def line() -> int:
        nonlocal text, used
        while b"\n" not in text:
            if len(text) >= BLOCK or used + BLOCK > stored:
                raise VerificationFailed(f"{what} has a map of its holes that does not end.")
            text += take(BLOCK)
            used += BLOCK
        value, _, text = text.partition(b"\n")
        return _decimal(value, what)

    count = line()
    for _ in range(_counted(count, what)):
        pieces.add(line(), line())
    return pieces.finish(stored - used)


class _Pieces:
    """A map that is checked as it is read."""

    def __init__(self, size: int, what: str) -> None:
        if size > _MAX_SIZE:
            raise VerificationFailed(f"{what} is a sparse file of {size} bytes, which no file can have.")
        self._size = size
        self._what = what
        self._numbers = array("q")
        self._end = 0
        self._stored = 0

    def add(self, offset: int, length: int) -> None:
        if offset < self._end:
            raise VerificationFailed(f"{self._what} has a map of its holes that is out of order or overlaps.")
        if offset + length > self._size:
            raise VerificationFailed(f"{self._what} has a map of its holes that goes beyond its {self._size} bytes.")
        _counted(len(self._numbers) // 2 + 1, self._what)
        self._end = offset + length
        self._stored += length
        self._numbers.extend((offset, length))

    def finish(self, stored: int) -> SparseFile:
        if stored != self._stored:
            raise VerificationFailed(
                f"{self._what} has {stored} bytes stored, and the map of its holes says {self._stored}."
            )
        return SparseFile(self._size, stored, self._numbers)


def _counted(count: int, what: str) -> int:
    if count > MAX_PIECES:
        raise LimitExceeded(f"{what} is a sparse file of more than {MAX_PIECES} pieces.")
    return count


def _size(found: Mapping[str, bytes], *keys: str, what: str) -> int:
    for key in keys:
        if key in found:
            return _decimal(found[key], what)
    raise VerificationFailed(f"{what} is a sparse file without {_PREFIX}{keys[0]}.")


def _decimal(text: bytes, what: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise VerificationFailed(f"{what} has {text[:40]!r} for a number in the map of its holes.")
    return int(text)

"""Reads tar streams that nobody vouches for: bounded memory, no links, no devices, no names that lead elsewhere."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from airflow_provider_kitops.modelkit import _sparse
from airflow_provider_kitops.modelkit._paths import MAX_DEPTH, STAGE_MARK, leads_elsewhere
from airflow_provider_kitops.modelkit._tarfields import BLOCK, number, shown
from airflow_provider_kitops.oci.errors import LimitExceeded, UnsafePath, VerificationFailed

#: Most bytes of extended headers before one entry; a path of 4096 bytes and a size need far less, maps of sparse files
#: in PAX 0.0 and 0.1 as much as 1,000 and 3,000 pieces or more do.
_MAX_EXTENSION = 64 * 1024
_MAX_PATH = 4096
_LINKS = {b"1": "hard link", b"2": "symbolic link", b"3": "device", b"4": "device", b"6": "pipe"}
_RECORD = re.compile(rb"([1-9][0-9]{0,5}) ")
# Nothing else is used, and a stream could hold any number of other keys.
_USED = frozenset(
    [b"path", b"size"] + [b"GNU.sparse." + key for key in b"major minor name realsize size numblocks map".split()]
)


@dataclass(frozen=True)
class TarEntry:
    """One file or directory.

    :param name: clean relative path.
    :param mode: permission bits, without setuid, setgid and sticky.
    :param size: bytes of the file, holes included; 0 for a directory.
    """

    name: str
    mode: int
    size: int
    directory: bool


def read_entries(
    read: Callable[[int], bytes],
    label: str,
    above: str = "",
    on_holes: Callable[[int], None] = lambda size: None,
) -> Iterator[tuple[TarEntry, Iterator[bytes]]]:
    """The entries of a tar stream, each with its content, which must be used up before the next.

    Sparse files come with their holes, as ``_sparse.Hole``.

    :param read: gives up to so many bytes, and empty bytes only at the end.
    :param label: what to call the stream in messages.
    :param above: clean path of a directory that all names are relative to.
    :param on_holes: told how many bytes of a file are not in the stream, before the file is given; may raise.
    :raises UnsafePath: a link, a device, or a name that leaves the directory.
    :raises VerificationFailed: the stream is no tar, or ends early.
    :raises LimitExceeded: a header that is larger, or a name that is deeper, than any real one.
    """
    stream = _Exact(read, label)
    extended: dict[str, bytes] = {}
    extension = 0
    while True:
        block = stream.take(BLOCK)
        if not any(block):
            return
        if number(block[148:156], label) != sum(block) - sum(block[148:156]) + 8 * 32:
            raise VerificationFailed(f"{label} is not a tar stream: the checksum of a header is wrong.")
        kind = block[156:157]
        size = number(block[124:136], label)
        if kind in (b"x", b"g", b"L"):
            extension += size
            if extension > _MAX_EXTENSION:
                raise LimitExceeded(
                    f"{label} has extended headers of {extension} bytes before one entry; {_MAX_EXTENSION} is most."
                )
            data = stream.take(size)
            stream.take(-size % BLOCK)
            if kind == b"x":
                extended |= _records(data, label)
            elif kind == b"L":
                extended["path"] = data.rstrip(b"\0")
            elif b"GNU.sparse." in data:
                raise VerificationFailed(f"{label} has a header for all files that makes them sparse.")
            continue
        records, extended, extension = extended, {}, 0
        raw = _sparse.name_of(records) or records.get("path") or _name(block)
        size = _size(records.get("size"), size, label)
        if kind in _LINKS:
            raise UnsafePath(
                f"{label} holds the {_LINKS[kind]} {shown(raw)}; a ModelKit has only files and directories."
            )
        if kind not in (b"0", b"\0", b"5", b"S"):
            raise VerificationFailed(f"{label} holds {shown(raw)} of the unknown type {kind!r}.")
        directory = kind == b"5" or raw.endswith(b"/")
        name = safe_name(raw, label)
        sparse = None
        if kind == b"S" or _sparse.is_sparse(records):
            sparse = _sparse_file(block, records, size, directory, stream, f"{label}: {shown(raw)}")
        if not name:
            if not directory:
                raise UnsafePath(f"{label} holds a file without a name.")
            continue
        mode = number(block[100:108], label) & 0o777
        if directory:
            real, content = 0, stream.content(0)
        elif sparse:
            on_holes(sparse.size - sparse.stored)
            real, content = sparse.size, sparse.content(stream.content)
        else:
            real, content = size, stream.content(size)
        yield TarEntry(posixpath.join(above, name), mode, real, directory), content
        for _ in content:
            pass
        if not directory:
            stream.take(-size % BLOCK)


def _sparse_file(
    block: bytes, records: dict[str, bytes], size: int, directory: bool, stream: _Exact, what: str
) -> _sparse.SparseFile:
    """The map of a sparse file, which is read as far as it is before the content."""
    old = block[156:157] == b"S"
    if directory or (old and _sparse.is_sparse(records)):
        raise VerificationFailed(f"{what} is {'a directory' if directory else 'sparse in two ways'} and a sparse file.")
    if old:
        return _sparse.read_old_gnu(block, size, stream.take, what)
    return _sparse.read_pax(records, size, stream.take, what)


def safe_name(raw: bytes, label: str) -> str:
    """``raw`` as a clean path below the directory; empty if it names the directory itself.

    :raises UnsafePath: absolute, with ``..``, not UTF-8, too long, or one that only unpacking itself may use.
    :raises LimitExceeded: too many levels deep.
    """
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise UnsafePath(f"{label} holds the name {shown(raw)}, which is not UTF-8.") from error
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or len(raw) > _MAX_PATH or leads_elsewhere(name):
        raise UnsafePath(f"{label} holds the name {shown(raw)}, which does not stay below the directory.")
    if len(parts) > MAX_DEPTH:
        raise LimitExceeded(f"{label} holds the name {shown(raw)}, {len(parts)} levels deep; {MAX_DEPTH} is most.")
    if STAGE_MARK in name:
        raise UnsafePath(f"{label} holds the name {shown(raw)}, which only unpacking itself may use.")
    return "/".join(parts)


class _Exact:
    """Reads whole pieces of a stream."""

    def __init__(self, read: Callable[[int], bytes], label: str) -> None:
        self._read = read
        self._label = label

    def take(self, size: int) -> bytes:
        return b"".join(self.content(size))

    def content(self, size: int) -> Iterator[bytes]:
        while size:
            data = self._read(min(size, 1024 * 1024))
            if not data:
                raise VerificationFailed(f"{self._label} ends in the middle of a file.")
            size -= len(data)
            yield data


def _size(extended: bytes | None, size: int, label: str) -> int:
    if extended is None:
        return size
    if not re.fullmatch(rb"[0-9]{1,18}", extended):
        raise VerificationFailed(f"{label} has the malformed size {extended[:40]!r} in an extended header.")
    return int(extended)


def _name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _records(data: bytes, label: str) -> dict[str, bytes]:
    """PAX records, ``length key=value`` each (POSIX.1-2001, pax Extended Header)."""
    found: dict[str, bytes] = {}
    pieces: list[bytes] = []
    position = 0
    while position < len(data):
        match = _RECORD.match(data, position)
        end = position + int(match[1]) if match else 0
        body = data[match.end() : end] if match else b""
        key, separator, value = body[:-1].partition(b"=")
        if not separator or not body.endswith(b"\n") or end > len(data):
            raise VerificationFailed(f"{label} has a malformed extended header.")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (key == b"GNU.sparse.numbytes") != len(pieces) % 2 or b"," in value:
                raise VerificationFailed(f"{label} has a sparse file whose offsets and lengths do not take turns.")
            pieces.append(value)
        elif key in _USED:
            found[key.decode()] = value
        elif key.startswith(b"GNU.sparse."):
            raise VerificationFailed(f"{label} has a sparse file with the unknown key {key[:40]!r}.")
        position = end
    if pieces:
        if "GNU.sparse.map" in found:
            raise VerificationFailed(f"{label} has a sparse file with two maps of its holes.")
        # PAX 0.0 as 0.1.
        found["GNU.sparse.map"] = b",".join(pieces)
    return found

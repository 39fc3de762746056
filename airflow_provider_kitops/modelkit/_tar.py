"""Tar streams with the bytes that kit writes, so that equal files give equal layer digests everywhere.

The format is USTAR, with PAX records where USTAR has no room (POSIX.1-2001, pax). Python's own ``tarfile`` splits long
names at another slash, names PAX headers differently and pads to 10 KiB, so headers are written here.
"""

from __future__ import annotations

import posixpath
import struct

BLOCK = 512
TRAILER = bytes(2 * BLOCK)

_NAME_SIZE = 100
_PREFIX_SIZE = 155
#: Eleven octal digits are what a header has for a size.
_SIZE_LIMIT = 8**11


def header(name: str, mode: int, size: int, *, directory: bool) -> bytes:
    """All header blocks of one entry.

    :param name: path with slashes, without one at the end.
    :param mode: permission bits with setuid, setgid and sticky.
    :param size: bytes of the file; 0 for a directory.
    """
    raw = name.encode("utf-8")
    kind = b"5" if directory else b"0"
    if _is_plain(raw, size):
        return _block(raw, kind, mode, 1000, size, b"", b"0000000")
    data, split = _extended(raw, size)
    if not data:
        prefix, short = split or (b"", raw)
        return _block(short, kind, mode, 1000, size, prefix, b"0000000")
    parent, _, file = name.rpartition("/")
    extension = _ascii(posixpath.join(parent, "PaxHeaders.0", file).encode())[:_NAME_SIZE].rstrip(b"/")
    return (
        _block(extension, b"x", 0, 0, len(data), b"", b"")
        + data
        + padding(len(data))
        + _block(_field(_ascii(raw)), kind, mode, 1000, size if size < _SIZE_LIMIT else 0, b"", b"0000000")
    )


def header_size(name: str, size: int) -> int:
    """Bytes of what ``header`` gives."""
    raw = name.encode("utf-8")
    if _is_plain(raw, size):
        return BLOCK
    data, _ = _extended(raw, size)
    return BLOCK + (BLOCK + len(data) + -len(data) % BLOCK if data else 0)


def _is_plain(raw: bytes, size: int) -> bool:
    return len(raw) <= _NAME_SIZE and size < _SIZE_LIMIT and raw.isascii()


def _extended(raw: bytes, size: int) -> tuple[bytes, tuple[bytes, bytes] | None]:
    """The PAX records that an entry needs, and its name split in two if that saves them."""
    split = _split(raw)
    records: dict[str, bytes] = {}
    if (len(raw) > _NAME_SIZE or not raw.isascii()) and (split is None or size >= _SIZE_LIMIT):
        records["path"] = raw
    if size >= _SIZE_LIMIT:
        records["size"] = str(size).encode()
    return b"".join(_record(key, records[key]) for key in sorted(records)), split


def padding(size: int) -> bytes:
    """What fills the last block after ``size`` bytes."""
    return bytes(-size % BLOCK)


def _split(raw: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and name of a path too long for the name alone, at the last slash that leaves room for both."""
    if len(raw) <= _NAME_SIZE or not raw.isascii():
        return None
    slash = raw.rfind(b"/", 0, _PREFIX_SIZE + 1)
    if slash <= 0 or not 0 < len(raw) - slash - 1 <= _NAME_SIZE:
        return None
    return raw[:slash], raw[slash + 1 :]


def _ascii(raw: bytes) -> bytes:
    return bytes(byte for byte in raw if byte < 0x80)


def _field(raw: bytes) -> bytes:
    """A name cut to its field; readers would take a slash at the cut for a directory."""
    if len(raw) > _NAME_SIZE and raw[_NAME_SIZE - 1] == ord("/"):
        kept = len(raw[: _NAME_SIZE - 1].rstrip(b"/"))
        return raw[:kept] + b"\0" + raw[kept + 1 : _NAME_SIZE]
    return raw[:_NAME_SIZE]


def _record(key: str, value: bytes) -> bytes:
    """``length key=value`` where the length counts its own digits."""
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    if len(str(length)) != len(str(len(body))):
        length = len(body) + len(str(length))
    return str(length).encode() + body


_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_CHECKSUM = slice(148, 156)


def _block(name: bytes, kind: bytes, mode: int, uid: int, size: int, prefix: bytes, device: bytes) -> bytes:
    block = bytearray(
        _HEADER.pack(
            name, b"%07o" % mode, b"%07o" % uid, b"0000000", b"%011o" % size, b"00000000000", b" " * 8, kind, b"",
            b"ustar\x0000", b"", b"", device, device, prefix,
        )
    )  # fmt: skip
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)

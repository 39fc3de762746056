"""Tar streams with the bytes that kit writes, so that equal files give equal layer digests everywhere.

The format is USTAR, with PAX records where USTAR has no room (POSIX.1-2001, pax). Python's own ``tarfile`` splits long
names at another slash, names PAX headers differently and pads to 10 KiB, so headers are written here.
"""

from __future__ import annotations

import posixpath

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
    split = _split(raw)
    records: dict[str, bytes] = {}
    if (len(raw) > _NAME_SIZE or not raw.isascii()) and (split is None or size >= _SIZE_LIMIT):
        records["path"] = raw
    if size >= _SIZE_LIMIT:
        records["size"] = str(size).encode()
    kind = b"5" if directory else b"0"
    if not records:
        prefix, short = split or (b"", raw)
        return _block(short, kind, mode, 1000, size, prefix, device=b"0000000\0")
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    parent, _, file = name.rpartition("/")
    extension = _ascii(posixpath.join(parent, "PaxHeaders.0", file).encode())[:_NAME_SIZE].rstrip(b"/")
    return (
        _block(extension, b"x", 0, 0, len(data), b"", device=b"")
        + data
        + padding(len(data))
        + _block(_field(_ascii(raw)), kind, mode, 1000, size if size < _SIZE_LIMIT else 0, b"", b"0000000\0")
    )


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


def _block(name: bytes, kind: bytes, mode: int, uid: int, size: int, prefix: bytes, device: bytes) -> bytes:
    block = bytearray(BLOCK)
    block[0 : len(name)] = name
    block[100:108] = b"%07o\0" % mode
    block[108:116] = b"%07o\0" % uid
    block[116:124] = b"%07o\0" % 0
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % 0
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[329 : 329 + len(device)] = device
    block[337 : 337 + len(device)] = device
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)

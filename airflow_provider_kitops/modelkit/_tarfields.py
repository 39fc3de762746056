"""Fields of tar headers, as they are read."""

from __future__ import annotations

import re

from airflow_provider_kitops.oci.errors import VerificationFailed

BLOCK = 512


def number(field: bytes, label: str) -> int:
    """An octal number, or a binary one as GNU tar writes it.

    :raises VerificationFailed: it is negative, or none.
    """
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise VerificationFailed(f"{label} has a negative number in a header.")
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", text):
        raise VerificationFailed(f"{label} is not a tar stream: {field!r} is no octal number.")
    return int(text or b"0", 8)


def shown(raw: bytes) -> str:
    """The bytes of a name in a message."""
    return repr(raw[:200].decode("utf-8", "backslashreplace"))

"""JSON with the bytes that Go's ``encoding/json`` writes, because the digest of a config is taken over them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from airflow_provider_kitops.oci.errors import InvalidInput

_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_ESCAPED = re.compile('["\\\\<>&\x00-\x1f\u2028\u2029\ud800-\udfff]')


def dumps(value: Any) -> bytes:
    """Encode ``value`` compactly; mappings keep their order.

    :raises InvalidInput: a value that JSON has no form for (NaN, infinity, a key that is no text, another type).
    """
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts).encode()


def _write(value: Any, out: list[str]) -> None:
    if value is None:
        out.append("null")
    elif isinstance(value, bool):
        out.append("true" if value else "false")
    elif isinstance(value, str):
        out.append(_text(value))
    elif isinstance(value, int):
        out.append(str(value))
    elif isinstance(value, float):
        out.append(number(value))
    elif isinstance(value, Mapping):
        for index, (key, item) in enumerate(value.items()):
            if not isinstance(key, str):
                raise InvalidInput(f"The key {key!r} is {type(key).__name__}; JSON takes only text as a key.")
            out.append(("," if index else "{") + _text(key) + ":")
            _write(item, out)
        out.append("}" if value else "{}")
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for index, item in enumerate(value):
            out.append("," if index else "[")
            _write(item, out)
        out.append("]" if value else "[]")
    else:
        raise InvalidInput(f"JSON has no form for {type(value).__name__}.")


def _text(text: str) -> str:
    return '"' + _ESCAPED.sub(_escape, text) + '"'


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if "\ud800" <= character <= "\udfff":
        return "\\ufffd"
    return _SHORT.get(character) or f"\\u{ord(character):04x}"


def number(value: float) -> str:
    """The shortest decimal that reads back as ``value``; with an exponent below 1e-6 and from 1e21 on."""
    if not math.isfinite(value):
        raise InvalidInput(f"JSON has no form for the number {value}.")
    digits = repr(value)
    if value and not 1e-6 <= abs(value) < 1e21:
        mantissa, _, exponent = f"{Decimal(digits).normalize():e}".partition("e")
        return f"{mantissa}e{exponent[0] if exponent[0] in '+-' else '+'}{exponent.lstrip('+-')}"
    plain = f"{Decimal(digits):f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain

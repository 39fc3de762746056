"""One way to write a JSON value, so that equal values have equal bytes and digests."""

from __future__ import annotations

import json

from airflow_provider_kitops.oci.descriptor import digest_of


def canonical(value: object) -> bytes:
    """``value`` as JSON with sorted keys, no spaces, UTF-8.

    :raises ValueError: not a number (NaN, infinity), which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def json_digest(value: object) -> str:
    """The SHA-256 digest of ``value`` in that form."""
    return digest_of(canonical(value))

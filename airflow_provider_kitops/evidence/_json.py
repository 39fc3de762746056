"""Reading JSON that somebody else wrote."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_kitops.oci.errors import KitopsError


def read_json(data: bytes, what: str, error: type[KitopsError]) -> Any:
    """Parse ``data``.

    :param what: what it should be, for the message.
    :param error: class of the error for what is no JSON, or is nested deeper than Python can read.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as reason:
        raise error(f"{what} is not JSON: {reason}.") from reason

"""What a program measured: ``metrics.json`` in its output."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from airflow_provider_kitops.oci.errors import WorkloadFailed

METRICS_FILE = "metrics.json"
# Control characters but tab and line feed, and halves of surrogate pairs.
_UNREADABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_LIMIT = 64 * 1024  # bytes; metrics become an XCom, which is a row of Airflow's database


def read_metrics(output: Path) -> dict[str, Any]:
    """The program's ``metrics.json``; empty if there is none.

    :raises WorkloadFailed: it is no file, no JSON object, holds NaN or an infinite number, or is larger than 64 KiB.
    """
    data = metrics_bytes(output)
    return {} if data is None else parse_metrics(data)


def metrics_bytes(output: Path) -> bytes | None:
    """``metrics.json`` as it was written, no more than what shows that it is too large; None if there is none.

    Whoever reads it may read what the program may not, the registry's credentials for one: a link is not followed.

    :raises WorkloadFailed: it is no file.
    """
    path = output / METRICS_FILE
    try:
        # Without waiting: it may be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WorkloadFailed(f"The program's {METRICS_FILE} cannot be read as a file: {error.strerror}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise WorkloadFailed(f"The program's {METRICS_FILE} is no file.")
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_LIMIT + 1)


def parse_metrics(data: bytes) -> dict[str, Any]:
    """The metrics in the bytes of a ``metrics.json``.

    :raises WorkloadFailed: as ``read_metrics`` does.
    """
    if len(data) > _LIMIT:
        raise WorkloadFailed(
            f"The program's {METRICS_FILE} is larger than {_LIMIT // 1024} KiB.",
            hint="Write a summary there, and what is large to another file of the output.",
        )
    try:
        metrics = json.loads(data)
        # Python reads NaN, Infinity and 1e999, but no other reader of JSON does, nor the database behind XCom.
        json.dumps(metrics, allow_nan=False)
    except RecursionError:
        raise WorkloadFailed(f"The program's {METRICS_FILE} is nested too deeply.") from None
    except ValueError as error:
        raise WorkloadFailed(f"The program's {METRICS_FILE} is no JSON: {error}.") from error
    if not isinstance(metrics, dict):
        raise WorkloadFailed(f"The program's {METRICS_FILE} holds a {type(metrics).__name__}, not an object.")
    cleaned: dict[str, Any] = readable(metrics)
    return cleaned


def readable(value: Any) -> Any:
    """A JSON value without the characters that databases refuse in text: a program may write any."""
    if isinstance(value, str):
        return _UNREADABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {readable(key): readable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [readable(each) for each in value]
    return value

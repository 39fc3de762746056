"""What a program measured: ``metrics.json`` in its output."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from airflow_provider_kitops.oci.errors import WorkloadFailed

METRICS_FILE = "metrics.json"
# Control characters but tab and line feed, and halves of surrogate pairs.
_UNREADABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_LIMIT = 64 * 1024  # bytes; metrics become an XCom, which is a row of Airflow's database
_LARGEST = 2**63  # what Airflow's messages (MessagePack) hold of integers
_DEEPEST = 50  # levels; what writes and reads an XCom recurses
# Airflow's own in what it serializes: __classname__, __type, __var and others, which make an object of what is read.
_RESERVED = re.compile(r"^__+")


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
        if error.errno == errno.ELOOP:
            raise WorkloadFailed(f"The program's {METRICS_FILE} is a link, not a file.") from error
        raise WorkloadFailed(f"The program's {METRICS_FILE} cannot be read as a file: {error.strerror}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise WorkloadFailed(f"The program's {METRICS_FILE} is no file.")
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_LIMIT + 1)


def parse_metrics(data: bytes) -> dict[str, Any]:
    """The metrics in the bytes of a ``metrics.json``, as ``readable`` makes them.

    :raises WorkloadFailed: it is no JSON object, holds NaN or an infinite number, is larger than 64 KiB, or nested
        deeper than 50 levels.
    """
    cleaned: dict[str, Any] = readable(_parse(data))
    return cleaned


def reserved_keys(data: bytes) -> list[str]:
    """The keys in the bytes of a ``metrics.json`` that ``readable`` gives another name for their underscores.

    :raises WorkloadFailed: as ``parse_metrics`` does.
    """
    found, level = set[str](), [_parse(data)]
    while level:
        found.update(key for each in level if isinstance(each, dict) for key in each if _RESERVED.match(key))
        level = _below(level)
    return sorted(found)


def _parse(data: bytes) -> dict[str, Any]:
    deep = f"The program's {METRICS_FILE} is nested too deeply (more than {_DEEPEST} levels)."
    if len(data) > _LIMIT:
        raise WorkloadFailed(
            f"The program's {METRICS_FILE} is larger than {_LIMIT // 1024} KiB.",
            hint="Write a summary there, and what is large to another file of the output.",
        )
    try:
        metrics = json.loads(data)
        if too_deep(metrics):
            raise WorkloadFailed(deep)
        # Python reads NaN, Infinity and 1e999, but no other reader of JSON does, nor the database behind XCom.
        json.dumps(metrics, allow_nan=False)
    except RecursionError:
        raise WorkloadFailed(deep) from None
    except ValueError as error:
        raise WorkloadFailed(f"The program's {METRICS_FILE} is no JSON: {error}.") from error
    if not isinstance(metrics, dict):
        raise WorkloadFailed(f"The program's {METRICS_FILE} holds a {type(metrics).__name__}, not an object.")
    return metrics


def too_deep(value: Any) -> bool:
    """Whether a JSON value is nested deeper than 50 levels, which is more than ``readable`` is made for."""
    level = [value]
    for _ in range(_DEEPEST):
        level = _below(level)
    return any(isinstance(each, (dict, list)) for each in level)


def _below(level: list[Any]) -> list[Any]:
    """All that is directly in these values."""
    parts = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list)))
    return [one for part in parts for one in part]


def readable(value: Any) -> Any:
    """A JSON value that every database and Airflow's serializer take as it is: a program may write any.

    Characters that databases refuse in text are replaced. A number beyond 64 bits becomes text: an integer ends the
    triggerer that sends it, and a float comes back from PostgreSQL's JSON as an integer. Of the underscores that a key
    begins with, one is kept (``__type`` becomes ``_type``), for Airflow makes objects of what has keys such as
    ``__classname__``. A key that would then be there twice gets a number (``_type-2``).

    :param value: not ``too_deep``.
    """
    if isinstance(value, str):
        return _UNREADABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {name: readable(each) for name, each in zip(_names(value), value.values(), strict=True)}
    if isinstance(value, list):
        return [readable(each) for each in value]
    if isinstance(value, int | float) and not -_LARGEST <= value < _LARGEST:
        return str(value)
    return value


def _names(keys: Iterable[str]) -> list[str]:
    """Readable names for the keys of one object: keys that are fine keep theirs, and no two become one."""
    wanted = {key: _RESERVED.sub("_", _UNREADABLE.sub("\N{REPLACEMENT CHARACTER}", key)) for key in keys}
    taken, counts = {key for key, name in wanted.items() if key == name}, dict[str, int]()
    for key, name in wanted.items():
        if key == name:
            continue
        free, number = name, counts.get(name, 1)
        while free in taken:
            number += 1
            free = f"{name}-{number}"
        counts[name] = number
        taken.add(free)
        wanted[key] = free
    return list(wanted.values())

"""Raw layers: one file as it is, its mode in an annotation (modelpack/model-spec, docs/annotations.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_kitops.modelkit import _gojson
from airflow_provider_kitops.modelkit._paths import clean
from airflow_provider_kitops.modelkit._untar import TarEntry, safe_name
from airflow_provider_kitops.modelkit.manifest import FILE_METADATA, Layer
from airflow_provider_kitops.oci.errors import UnsafePath, VerificationFailed

_CHUNK = 1024 * 1024
_MODE = 0o644


def metadata(name: str, mode: int, size: int, modified: str) -> str:
    """The annotation of a raw layer.

    :param name: of the file, without its directories.
    :param mode: permission bits.
    :param size: bytes.
    :param modified: RFC 3339 time. The file's own would give the same files another digest each time.
    """
    value = {"name": name, "mode": mode, "uid": 0, "gid": 0, "size": size, "mtime": modified, "typeflag": 0}
    return _gojson.dumps(value).decode()


def raw_entry(read: Callable[[int], bytes], layer: Layer, label: str) -> Iterator[tuple[TarEntry, Iterator[bytes]]]:
    """The one file of a raw layer, as ``read_entries`` gives those of a tar.

    :param read: gives up to so many bytes of the file, and empty bytes only at the end.
    :param label: what to call the layer in messages.
    :raises UnsafePath: the path leaves the directory, or names it.
    :raises VerificationFailed: the annotation is malformed, or the file has another size than it says.
    """
    name = safe_name(clean(layer.path).encode(), label)
    if not name:
        raise UnsafePath(f"{label} is one file, and its path names the directory itself.")
    mode, size = _stored(layer, label)
    yield TarEntry(name, mode, size or 0, False), _content(read, size, label)


def _content(read: Callable[[int], bytes], size: int | None, label: str) -> Iterator[bytes]:
    done = 0
    while data := read(_CHUNK):
        done += len(data)
        yield data
    if size is not None and done != size:
        raise VerificationFailed(f"{label} has {done} bytes, but its annotation says {size}.")


def _stored(layer: Layer, label: str) -> tuple[int, int | None]:
    text = layer.descriptor.annotations.get(FILE_METADATA)
    if not text:
        return _MODE, None
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    mode, size = (value.get("mode", _MODE), value.get("size")) if isinstance(value, dict) else (None, None)
    if type(mode) is not int or not (size is None or type(size) is int):
        raise VerificationFailed(f"{label} has a malformed annotation {FILE_METADATA}.")
    return mode & 0o777, size

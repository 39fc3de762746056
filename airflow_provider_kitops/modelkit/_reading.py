"""Reads a layer out of a repository: verified, decompressed, as the files and directories that it holds."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator

from airflow_provider_kitops.modelkit._compression import Decompressed
from airflow_provider_kitops.modelkit._paths import clean
from airflow_provider_kitops.modelkit._raw import raw_entry
from airflow_provider_kitops.modelkit._untar import TarEntry, read_entries, safe_name
from airflow_provider_kitops.modelkit.manifest import Layer, LayerType
from airflow_provider_kitops.oci.errors import InvalidInput, VerificationFailed
from airflow_provider_kitops.oci.target import Target

_CHUNK = 1024 * 1024


def read_layer(
    target: Target,
    layer: Layer,
    *,
    on_read: Callable[[int], None] = lambda count: None,
    on_content: Callable[[int], None] = lambda count: None,
) -> Iterator[tuple[TarEntry, Iterator[bytes]]]:
    """The files and directories of a layer, each with its content, which must be used up before the next.

    Digest and diffId are proved only by the end of the iteration: until then nothing of it may be taken for true.

    :param on_read: told how many bytes of the blob were read; may raise.
    :param on_content: told how many bytes came out of it, holes of sparse files included; may raise.
    :raises InvalidInput: a media type that cannot be read.
    :raises DigestMismatch, VerificationFailed: the layer is not what its digest and its diffId say.
    :raises UnsafePath, LimitExceeded: as ``read_entries`` raises them.
    """
    label = f"The layer {layer.kind.value} {layer.path} of {target.name}"
    kind = LayerType.parse(layer.descriptor.media_type)
    if kind is None or kind.compression not in ("", "gzip", "zstd"):
        raise InvalidInput(f"{label} has the media type {layer.descriptor.media_type}, which cannot be read.")
    if not kind.compression and layer.diff_id not in ("", layer.descriptor.digest):
        raise VerificationFailed(f"{label} is not compressed, but its diffId differs from its digest.")
    with target.fetch(layer.descriptor) as reader:

        def read(size: int) -> bytes:
            data = reader.read(size)
            on_read(len(data))
            return data

        decompressed = Decompressed(read, kind.compression, label) if kind.compression else None

        def content(size: int) -> bytes:
            data = decompressed.read(size) if decompressed else read(size)
            on_content(len(data))
            return data

        if kind.form == "raw":
            yield from raw_entry(content, layer, label)
        else:
            # Before kit 0.5 names in a layer were relative to the parent of the layer's path.
            above = "" if layer.diff_id else safe_name(posixpath.dirname(clean(layer.path)).encode(), label)
            yield from read_entries(content, label, above, on_content)
        while content(_CHUNK):
            pass
        if decompressed and layer.diff_id and decompressed.digest != layer.diff_id:
            raise VerificationFailed(f"{label} unpacks to {decompressed.digest}, but its diffId is {layer.diff_id}.")

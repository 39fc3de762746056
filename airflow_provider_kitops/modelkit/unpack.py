"""Unpack a ModelKit into a directory: verified, confined to the directory, whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import posixpath
import shutil
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_kitops.modelkit import _untar
from airflow_provider_kitops.modelkit._parallel import Stop, run_all
from airflow_provider_kitops.modelkit._paths import clean
from airflow_provider_kitops.modelkit._staging import Stage
from airflow_provider_kitops.modelkit.filters import Filters
from airflow_provider_kitops.modelkit.kitfile import KITFILE_NAMES
from airflow_provider_kitops.modelkit.manifest import LayerType
from airflow_provider_kitops.modelkit.modelkit import Layer, ModelKit
from airflow_provider_kitops.modelkit.parents import ParentResolver, chain
from airflow_provider_kitops.oci.disk import storage_errors
from airflow_provider_kitops.oci.errors import InvalidInput, LimitExceeded, StorageError, VerificationFailed
from airflow_provider_kitops.oci.target import Progress, ProgressHook, Reader, Target

log = logging.getLogger(__name__)

_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What a ModelKit may bring with it, its parents included.

    :param files: files and directories, those included that only the names of others imply.
    :param bytes: unpacked bytes, headers included.
    :param names: bytes of memory for the names of files and directories, which are kept until all of them are in
        place. The default holds a million of 200 characters.
    """

    files: int = 1_000_000
    bytes: int = 1024**4
    names: int = 256 * 1024**2


def unpack(
    target: Target,
    reference: str,
    directory: Path,
    filters: Sequence[str] = (),
    *,
    overwrite: bool = False,
    ignore_existing: bool = False,
    limits: Limits = Limits(),
    parents: ParentResolver | None = None,
    concurrency: int = 5,
    on_progress: ProgressHook | None = None,
) -> ModelKit:
    """Unpack what ``reference`` names into ``directory``, and return it.

    Everything is written to a hidden directory beside its place and checked (digest, diffId, names) before any of it
    appears; then it is moved into place, and moved back if that fails half-way. After a kill the next call cleans up.

    :param reference: tag or digest in ``target``.
    :param directory: made if it does not exist.
    :param filters: which layers to unpack, ``type[,type…][:name-or-path[,…]]`` each; none means all and the Kitfile.
    :param overwrite: replace existing files.
    :param ignore_existing: keep existing files.
    :param limits: caps on what is unpacked.
    :param parents: finds the ModelKits that this one is based on; their model is unpacked first. Without it only the
        ModelKit's own layers are.
    :param concurrency: how many layers are unpacked at a time.
    :raises NotFound: no such ModelKit, or one that it is based on.
    :raises InvalidInput: it is no ModelKit, or an argument cannot be used.
    :raises DigestMismatch, VerificationFailed: content is not what its digest says.
    :raises UnsafePath: a name or link leads out of the directory.
    :raises LimitExceeded: more than ``limits`` allow.
    :raises Conflict: a file exists already.
    :raises StorageError: the disk is full or refuses.
    """
    if overwrite and ignore_existing:
        raise InvalidInput("Existing files can be overwritten or kept, not both.")
    if concurrency < 1:
        raise InvalidInput(f"The concurrency is {concurrency}; it must be at least 1.")
    wanted = Filters.parse(filters)
    modelkit = ModelKit.read(target, reference)
    kits = [(target, modelkit, wanted)]
    base = modelkit.kitfile.base_reference
    if base and parents is None:
        log.warning("%s is based on %s, which is not unpacked.", target.name, base)
    elif base and parents:
        of_parent = wanted.of_parent()
        kits += [(where, parent, of_parent) for where, parent in chain(base, parents)]
    for dataset in modelkit.kitfile.datasets:
        if dataset.remote_path:
            log.warning("The dataset %s is at %s and is not fetched.", dataset.name, dataset.remote_path)
    budget = _Budget(limits)
    with Stage(
        Path(directory),
        overwrite=overwrite,
        ignore_existing=ignore_existing,
        on_implied=budget.file,
        on_name=budget.name,
    ) as stage:
        selected = [(kit, [layer for layer in kit[1].layers if kit[2].passes(layer)]) for kit in reversed(kits)]
        _room(stage.root, [layer for _, layers in selected for layer in layers])
        for order, ((where, _, _), layers) in enumerate(selected):
            jobs = [
                functools.partial(_unpack_layer, where, layer, stage, (order, index), budget, on_progress)
                for index, layer in enumerate(layers)
            ]
            run_all(jobs, concurrency)
        kitfile = KITFILE_NAMES[0]
        if wanted.kitfile:
            with stage.add_file(kitfile, 0o644, (len(selected) - 1, 0)) as descriptor:
                if descriptor is not None:
                    _write_all(descriptor, modelkit.kitfile.to_yaml().encode(), stage.tree / kitfile)
        stage.commit(same_bytes=frozenset([kitfile]) if wanted.kitfile else frozenset())
    return modelkit


def _room(place: Path, layers: Sequence[Layer]) -> None:
    """Notice a full disk before hours of download."""
    needed = sum(layer.descriptor.size for layer in layers)
    with storage_errors("look at the disk of", place):
        free = shutil.disk_usage(place).free
    if needed > free:
        raise StorageError(
            f"The layers need {needed} bytes, and the disk of {place.parent} has {free} left.",
            hint="The disk is too full: free some space, or unpack to another disk.",
        )


class _Budget:
    """Counts what all layers bring together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._files = 0
        self._bytes = 0
        self._names = 0

    def file(self) -> None:
        with self._lock:
            self._files += 1
            if self._files > self._limits.files:
                raise LimitExceeded(
                    f"The ModelKit holds more than {self._limits.files} files.",
                    hint="Raise the limit if that is right.",
                )

    def name(self, size: int) -> None:
        with self._lock:
            self._names += size
            if self._names > self._limits.names:
                raise LimitExceeded(
                    f"The names of the files in the ModelKit need more than {self._limits.names} bytes of memory.",
                    hint="Raise the limit if so many and so long names are right.",
                )

    def data(self, count: int) -> None:
        with self._lock:
            self._bytes += count
            if self._bytes > self._limits.bytes:
                raise LimitExceeded(
                    f"The ModelKit unpacks to more than {self._limits.bytes} bytes.",
                    hint="Raise the limit if that is right.",
                )


def _unpack_layer(
    target: Target,
    layer: Layer,
    stage: Stage,
    order: tuple[int, int],
    budget: _Budget,
    on_progress: ProgressHook | None,
    stop: Stop,
) -> None:
    label = f"The layer {layer.kind.value} {layer.path} of {target.name}"
    kind = LayerType.parse(layer.descriptor.media_type)
    if kind is None or kind.form != "tar" or kind.compression not in ("", "gzip", "gzip-fastest"):
        raise InvalidInput(f"{label} has the media type {layer.descriptor.media_type}, which cannot be unpacked yet.")
    if not kind.compression and layer.diff_id not in ("", layer.descriptor.digest):
        raise VerificationFailed(f"{label} is not compressed, but its diffId differs from its digest.")
    # Before kit 0.5 names in a layer were relative to the parent of the layer's path.
    prefix = "" if layer.diff_id else _untar.safe_name(posixpath.dirname(clean(layer.path)).encode(), label)
    with target.fetch(layer.descriptor) as reader:
        progress = _Counted(reader, layer, stop, on_progress)
        stream = _Plain(progress.read, budget) if not kind.compression else _Gzip(progress.read, budget, label)
        for entry, content in _untar.read_entries(stream.read, label):
            budget.file()
            name = posixpath.join(prefix, entry.name)
            if entry.directory:
                stage.add_directory(name, entry.mode, order)
                continue
            with stage.add_file(name, entry.mode, order) as descriptor:
                for data in content:
                    if descriptor is not None:
                        _write_all(descriptor, data, stage.tree / name)
        # Only the end of the stream proves the digest.
        while stream.read(_CHUNK):
            pass
        if isinstance(stream, _Gzip) and layer.diff_id and stream.digest != layer.diff_id:
            raise VerificationFailed(f"{label} unpacks to {stream.digest}, but its diffId is {layer.diff_id}.")


def _write_all(descriptor: int, data: bytes, path: Path) -> None:
    view = memoryview(data)
    with storage_errors("write", path):
        while view:
            view = view[os.write(descriptor, view) :]


class _Counted:
    """Reads a blob, tells how far it is, and ends when another layer has failed."""

    def __init__(self, reader: Reader, layer: Layer, stop: Stop, on_progress: ProgressHook | None) -> None:
        self._reader = reader
        self._layer = layer
        self._stop = stop
        self._on_progress = on_progress
        self._done = 0

    def read(self, size: int) -> bytes:
        self._stop.check()
        data = self._reader.read(size)
        self._done += len(data)
        if data and self._on_progress:
            total = self._layer.descriptor.size
            self._on_progress(Progress("unpack", clean(self._layer.path), self._done, total))
        return data


class _Plain:
    """The tar stream of a layer that is not compressed."""

    def __init__(self, read: Callable[[int], bytes], budget: _Budget) -> None:
        self._read = read
        self._budget = budget

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self._budget.data(len(data))
        return data


class _Gzip:
    """The tar stream of a gzip layer (RFC 1952, several members allowed), hashed as it comes out."""

    def __init__(self, read: Callable[[int], bytes], budget: _Budget, label: str) -> None:
        self._read = read
        self._budget = budget
        self._label = label
        self._hash = hashlib.sha256()
        self._decompressor = zlib.decompressobj(wbits=31)

    @property
    def digest(self) -> str:
        """Digest of what has been read."""
        return f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int) -> bytes:
        while True:
            pending = self._decompressor.unconsumed_tail
            if self._decompressor.eof:
                pending = self._decompressor.unused_data
                if pending or (pending := self._read(_CHUNK)):
                    self._decompressor = zlib.decompressobj(wbits=31)
                else:
                    return b""
            elif not pending:
                pending = self._read(_CHUNK)
            try:
                data = self._decompressor.decompress(pending, size)
            except zlib.error as error:
                raise VerificationFailed(f"{self._label} is not valid gzip: {error}.") from error
            if data:
                self._hash.update(data)
                self._budget.data(len(data))
                return data
            if not pending and not self._decompressor.eof:
                raise VerificationFailed(f"{self._label} ends in the middle of its gzip stream.")

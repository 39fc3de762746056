"""Unpack a ModelKit into a directory: verified, confined to the directory, whole or not at all."""

from __future__ import annotations

import functools
import logging
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_kitops.modelkit import _s3
from airflow_provider_kitops.modelkit._paths import clean
from airflow_provider_kitops.modelkit._reading import read_layer
from airflow_provider_kitops.modelkit._sparse import Hole
from airflow_provider_kitops.modelkit._staging import Stage
from airflow_provider_kitops.modelkit._untar import safe_name
from airflow_provider_kitops.modelkit.filters import Filters, content_of
from airflow_provider_kitops.modelkit.kitfile import KITFILE_NAMES, LayerKind
from airflow_provider_kitops.modelkit.limits import DEFAULT_LIMITS, Budget, Limits
from airflow_provider_kitops.modelkit.manifest import Layer
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.parents import ParentResolver, asked_for, chain
from airflow_provider_kitops.oci.disk import check_room, storage_errors, write_all
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.oci.parallel import Stop, run_all
from airflow_provider_kitops.oci.target import Progress, ProgressHook, Target

log = logging.getLogger(__name__)

_CHUNK = 1024 * 1024


def unpack(
    target: Target,
    reference: str,
    directory: Path,
    filters: Sequence[str] = (),
    *,
    overwrite: bool = False,
    ignore_existing: bool = False,
    allow_case_collisions: bool = False,
    include_remote: bool = False,
    labels: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
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
    :param allow_case_collisions: unpack names, too, that are one and the same on a disk that does not tell capital
        letters, or forms of Unicode, apart; on such a disk the call ends with an error.
    :param include_remote: also unpack the datasets that ``datasets[].remotePath`` names: those of a ModelKit below
        their ``path``, which needs ``parents``, and an ``s3://`` object as the file at ``path``, which needs boto3.
        Without it they are only warned about.
    :param labels: which ModelKit to take, where ``reference`` names an index of several.
    :param limits: caps on what is unpacked.
    :param parents: finds the ModelKits that this one is based on; their model is unpacked first. Without it only the
        ModelKit's own layers are.
    :param concurrency: how many layers are unpacked at a time.
    :raises NotFound: no such ModelKit, or one that it is based on, or object in S3; or a filter names what it has not.
    :raises InvalidInput: it is no ModelKit, or an argument cannot be used.
    :raises DigestMismatch, VerificationFailed: content is not what its digest says.
    :raises UnsafePath: a name or link leads out of the directory, or names collide.
    :raises LimitExceeded: more than ``limits`` allow.
    :raises Conflict: a file exists already.
    :raises StorageError: the disk is full or refuses.
    """
    if overwrite and ignore_existing:
        raise InvalidInput("Existing files can be overwritten or kept, not both.")
    if concurrency < 1:
        raise InvalidInput(f"The concurrency is {concurrency}; it must be at least 1.")
    wanted = Filters.parse(filters)
    modelkit = ModelKit.read(target, reference, labels)
    based_on = _parents(target, modelkit, wanted, parents)
    wanted.check_names(modelkit, [part.modelkit for part in based_on], target.name)
    remote, named = _remote_datasets(modelkit, wanted, parents, include=include_remote)
    s3 = _s3.S3()
    objects = [s3.find(each) for each in named]
    own = [layer for layer in modelkit.layers if wanted.passes(layer)]
    parts = [*based_on, _Part(target, modelkit, own), *remote]
    if not wanted.kitfile and not objects and not any(part.layers for part in parts):
        said = "Nothing in %s passes the filters %s. It has %s."
        log.warning(said, target.name, ", ".join(filters), content_of(modelkit))
    budget = Budget(limits)
    with Stage(
        Path(directory),
        overwrite=overwrite,
        ignore_existing=ignore_existing,
        allow_case_collisions=allow_case_collisions,
        on_implied=budget.file,
        on_name=budget.name,
    ) as stage:
        sizes = [layer.descriptor.size for part in parts for layer in part.layers]
        check_room(stage.root, sum(sizes) + sum(each.size for each in objects), "unpacked")
        for layer in (layer for part in parts for layer in part.layers):
            if on_progress:  # so that the whole is known from the beginning
                on_progress(Progress("unpack", clean(layer.path), 0, layer.descriptor.size))
        for order, part in enumerate(parts):
            jobs = [
                functools.partial(_unpack_layer, part, layer, stage, (order, index), budget, on_progress)
                for index, layer in enumerate(part.layers)
            ]
            run_all(jobs, concurrency, [part.target])
        order = len(based_on)  # they are this ModelKit's own, and none of its layers may have the same path
        fetches = [functools.partial(_fetch, s3, each, stage, (order, 0), budget, on_progress) for each in objects]
        run_all(fetches, concurrency, [s3])
        kitfile = KITFILE_NAMES[0]
        if wanted.kitfile:
            with stage.add_file(kitfile, 0o644, (len(parts) - 1, 0)) as descriptor:
                if descriptor is not None:
                    with storage_errors("write", stage.tree / kitfile):
                        write_all(descriptor, modelkit.kitfile.to_yaml().encode())
        stage.commit(same_bytes=frozenset([kitfile]) if wanted.kitfile else frozenset())
    return modelkit


@dataclass(frozen=True)
class _Part:
    """Layers of one ModelKit, and the directory below which they go."""

    target: Target
    modelkit: ModelKit
    layers: Sequence[Layer]
    place: str = ""


def _parents(target: Target, modelkit: ModelKit, wanted: Filters, parents: ParentResolver | None) -> list[_Part]:
    """The models that this one is based on, the farthest first."""
    base = modelkit.kitfile.base_reference
    if base and parents is None:
        log.warning("%s is based on %s, which is not unpacked.", target.name, base)
    of_parent = wanted.of_parent()
    if base is None or parents is None or of_parent.filters == ():
        return []
    found = [
        _Part(where, parent, [layer for layer in parent.layers if of_parent.passes(layer)])
        for where, parent in chain(base, parents)
    ]
    return found[::-1]


def _remote_datasets(
    modelkit: ModelKit, wanted: Filters, resolve: ParentResolver | None, *, include: bool
) -> tuple[list[_Part], list[_s3.Wanted]]:
    """The datasets of the ModelKits that entries of ``datasets`` name instead of files, and those in S3."""
    parts, objects = [], []
    for dataset in modelkit.kitfile.datasets:
        label, address = dataset.name or dataset.path, dataset.remote_path
        if not address or not wanted.passes_entry(LayerKind.DATASET, dataset.path, dataset.name):
            continue
        if include and address.startswith(_s3.SCHEME):
            objects.append(_s3.Wanted.of(dataset))
        elif include and resolve is not None:
            place = safe_name(clean(dataset.path).encode(), f"The dataset {label}")
            with asked_for(f"The dataset {label} (remotePath {address})"):
                where, selector = resolve(address)
                remote = ModelKit.read(where, selector)
            layers = [layer for layer in remote.layers if layer.kind is LayerKind.DATASET]
            parts.append(_Part(where, remote, layers, place))
        else:
            log.warning("The dataset %s is at %s and is not fetched.", label, address)
    return parts, objects


def _unpack_layer(
    part: _Part,
    layer: Layer,
    stage: Stage,
    order: tuple[int, int],
    budget: Budget,
    on_progress: ProgressHook | None,
    stop: Stop,
) -> None:
    done = 0

    def on_read(count: int) -> None:
        nonlocal done
        stop.check()
        done += count
        if count and on_progress:
            on_progress(Progress("unpack", clean(layer.path), done, layer.descriptor.size))

    for entry, content in read_layer(part.target, layer, on_read=on_read, on_content=budget.data):
        budget.file()
        name = posixpath.join(part.place, entry.name)
        if entry.directory:
            stage.add_directory(name, entry.mode, order)
            continue
        with stage.add_file(name, entry.mode, order) as descriptor:
            if descriptor is not None:
                _write_content(descriptor, content, entry.size, stage.tree / name)


def _write_content(descriptor: int, content: Iterable[bytes], size: int, path: Path) -> None:
    """Write a file, and leave its holes out: they take no room where the file system can do without them."""
    hole = False
    for data in content:
        # Not around the loop: where the content comes from, and the hook that is told of it, have errors of their own.
        with storage_errors("write", path):
            hole = isinstance(data, Hole)
            if hole:
                os.lseek(descriptor, len(data), os.SEEK_CUR)
            else:
                write_all(descriptor, data)
    if hole:
        with storage_errors("write", path):
            os.ftruncate(descriptor, size)


def _fetch(
    s3: _s3.S3,
    found: _s3.Found,
    stage: Stage,
    order: tuple[int, int],
    budget: Budget,
    on_progress: ProgressHook | None,
    stop: Stop,
) -> None:
    name, done = found.wanted.path, 0
    budget.file()
    budget.data(found.size)
    with stage.add_file(name, 0o644, order) as descriptor:
        if descriptor is None:
            return
        for data in s3.read(found):
            stop.check()
            with storage_errors("write", stage.tree / name):
                write_all(descriptor, data)
            done += len(data)
            if on_progress:
                on_progress(Progress("download", name, done, found.size))

"""Copying a ModelKit from one store to another: push, pull and copy are all this."""

from __future__ import annotations

from airflow_provider_kitops.oci.copy import CopyResult, copy
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.oci.store import Store
from airflow_provider_kitops.oci.target import ProgressHook, Tags


def name_elsewhere(store: Store, reference: Reference) -> str:
    """``repository[:tag]`` as another store takes it.

    Each store has a registry and a namespace of its own, which it puts before the name.

    :param store: where it is.
    :param reference: in full, as ``store.reference`` gives it.
    """
    prefix = f"{store.config.namespace}/" if store.config.namespace else ""
    return reference.repository.removeprefix(prefix) + (f":{reference.tag}" if reference.tag else "")


def transfer(
    source: Store,
    origin: Reference,
    destination: Store,
    where: Reference,
    tags: Tags = None,
    *,
    referrers: bool = False,
    on_progress: ProgressHook | None = None,
) -> CopyResult:
    """Copy a manifest from one store to another, and then tag it. See ``oci.copy.copy``.

    The destination says which tags may move; of both, the smaller number of blobs is moved at a time.

    :param origin: what to copy: in full, with a tag or a digest.
    :param where: the repository to copy to, in full.
    """
    return copy(
        source.target(origin),
        origin.selector,
        destination.target(where),
        tags,
        referrers=referrers,
        concurrency=min(source.config.concurrency, destination.config.concurrency),
        mutable_tags=destination.config.mutable_tags,
        on_progress=on_progress,
    )

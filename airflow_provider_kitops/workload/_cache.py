"""A local layout between the registry and the inputs: what one run has brought, the next one need not bring again."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_kitops.modelkit.parents import ParentResolver
from airflow_provider_kitops.oci.copy import copy
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.oci.target import ProgressHook, Target


class Cache:
    """ModelKits in a directory that several runs may share, also at the same time.

    The registry is asked for every manifest nevertheless: who may not read it there gets nothing out of the cache.

    :param directory: the layout's root.
    :param concurrency: blobs at a time.
    :param on_progress: called as bytes are brought.
    """

    def __init__(self, directory: Path, concurrency: int, on_progress: ProgressHook | None = None) -> None:
        self._directory = directory
        self._concurrency = concurrency
        self._on_progress = on_progress

    def take(self, source: Target, selector: str) -> Target:
        """Copy what is not here yet, going on with downloads that broke, and return the repository to read from.

        :param selector: tag or digest in ``source``; a digest names the same in the cache.
        :raises StorageError: the cache cannot be written, or has no room.
        :raises NotFound, RegistryUnavailable: as ``copy`` raises them.
        """
        layout, _ = self._take(source, selector)
        return layout

    def through(self, parents: ParentResolver) -> ParentResolver:
        """``parents``, each taken into the cache before it is read."""

        def resolve(reference: str) -> tuple[Target, str]:
            return self._take(*parents(reference))

        return resolve

    def _take(self, source: Target, selector: str) -> tuple[Target, str]:
        layout = Layout(self._directory, Reference.parse(source.name).repository)
        copied = copy(source, selector, layout, concurrency=self._concurrency, on_progress=self._on_progress)
        return layout, copied.descriptor.digest

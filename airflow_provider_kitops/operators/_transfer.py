"""What push, pull and copy share: each copies a ModelKit from one store to another."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._arguments import path_argument
from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._references import ReferenceLike, reference_text, split_reference
from airflow_provider_kitops.operators._base import KitopsBaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_kitops.oci.reference import Reference
    from airflow_provider_kitops.oci.store import Store


class TransferOperator(KitopsBaseOperator):
    """Base of the operators that copy. What they do is the same; between which stores, each says."""

    template_fields: Sequence[str] = ("source", "destination", "tags", "kitops_conn_id")

    def __init__(
        self,
        *,
        source: ReferenceLike,
        destination: str | None = None,
        tags: str | Sequence[str] | None = None,
        referrers: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.destination = destination
        self.tags = tags
        self.referrers = referrers

    @abstractmethod
    def _source(self) -> Store: ...

    @abstractmethod
    def _destination(self) -> Store: ...

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kitops.oci import progress
        from airflow_provider_kitops.oci.copy import copy

        with self._source() as source, self._destination() as destination, progress.lines(self.log) as on_progress:
            origin = source.reference(reference_text(self.source, "source"))
            wanted = source.name_elsewhere(origin) if self.destination is None else self.destination
            repository, tags = split_reference(reference_text(wanted, "destination"), self.tags, "destination")
            where = destination.reference(repository)
            self._look(source, origin)
            result = copy(
                source.target(origin),
                origin.selector,
                destination.target(where),
                tags,
                referrers=self.referrers,
                concurrency=min(source.config.concurrency, destination.config.concurrency),
                mutable_tags=destination.config.mutable_tags,
                on_progress=on_progress,
            )
            return describe(
                destination,
                where.at(result.descriptor.digest),
                tags=tags,
                copied=result.copied,
                skipped=result.skipped,
                mounted=result.mounted,
                **self._told(destination),
            )

    def _told(self, destination: Store) -> dict[str, Any]:
        """What else the task returns."""
        return {}

    def _look(self, source: Store, origin: Reference) -> None:
        """Look at the source before anything else is done."""

    def _layout(self, path: str | Path | None, argument: str) -> Store:
        """A local layout, where the connection says which tags may move and how many blobs move at a time."""
        from airflow_provider_kitops.oci.store import Store, StoreConfig

        config = self.hook.config()
        return Store(
            StoreConfig(
                layout=path_argument(path, argument) if path is not None else None,
                concurrency=config.concurrency,
                mutable_tags=config.mutable_tags,
            )
        )

"""Copy a ModelKit between stores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._arguments import path_argument
from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._references import ReferenceLike, reference_text, split_reference
from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.operators._base import KitopsBaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_kitops.oci.reference import Reference
    from airflow_provider_kitops.oci.store import Store


class KitPushOperator(KitopsBaseOperator):
    """
    Copy a ModelKit from a local layout, or from another connection, to the connection's store.

    The manifest arrives byte for byte, so its digest stays; what is there already is not sent again.

    :param source: the ModelKit to copy: a reference, or the output of another task (templated).
    :param destination: ``repository:tag[,tag…]``; ``None`` means the repository and tag of ``source`` (templated).
    :param tags: further tags (templated).
    :param source_conn_id: connection to copy from; ``None`` means the local layout ``source_layout`` (templated).
    :param source_layout: root of the local layout to copy from; ``None`` means ``$MODELKIT_LAYOUT``, else the user's
        data directory. Only without ``source_conn_id`` (templated).
    :param referrers: also copy what is attached to it: reports, provenance, signatures.
    :param kitops_conn_id: where to copy to (templated).
    :return: the reference dictionary at the destination, with the bytes that were ``copied``, ``skipped`` (there
        already) and ``mounted`` (taken from another repository of the same registry or disk, without moving them).
    """

    template_fields: Sequence[str] = (
        "source",
        "destination",
        "tags",
        "source_conn_id",
        "source_layout",
        "kitops_conn_id",
    )

    def __init__(
        self,
        *,
        source: ReferenceLike,
        destination: str | None = None,
        tags: str | Sequence[str] | None = None,
        source_conn_id: str | None = None,
        source_layout: str | Path | None = None,
        referrers: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if source_conn_id and source_layout:
            raise ValueError("Give source_conn_id or source_layout, not both.")
        self.source = source
        self.destination = destination
        self.tags = tags
        self.source_conn_id = source_conn_id
        self.source_layout = source_layout
        self.referrers = referrers

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kitops.oci import progress
        from airflow_provider_kitops.oci.copy import copy

        with self._source() as source, self.hook.store() as store, progress.lines(self.log) as on_progress:
            origin = source.reference(reference_text(self.source, "source"))
            self._look(source, origin)
            # Each store has a namespace of its own, which the destination's puts before the name again.
            prefix = f"{source.config.namespace}/" if source.config.namespace else ""
            own = origin.repository.removeprefix(prefix) + (f":{origin.tag}" if origin.tag else "")
            wanted = reference_text(own if self.destination is None else self.destination, "destination")
            repository, tags = split_reference(wanted, self.tags, "destination")
            where = store.reference(repository)
            result = copy(
                source.target(origin),
                origin.selector,
                store.target(where),
                tags,
                referrers=self.referrers,
                concurrency=store.config.concurrency,
                mutable_tags=store.config.mutable_tags,
                on_progress=on_progress,
            )
            return describe(
                store,
                where.at(result.descriptor.digest),
                tags=tags,
                copied=result.copied,
                skipped=result.skipped,
                mounted=result.mounted,
            )

    def _look(self, source: Store, origin: Reference) -> None:
        """Say where the source was looked for, if nobody has said where it is."""
        from airflow_provider_kitops.oci.errors import NotFound

        if self.source_conn_id or self.source_layout or not origin.selector:
            return
        try:
            source.resolve(origin)
        except NotFound as error:
            hint = "It was looked for in the local layout: source_conn_id or source_layout says where else it is."
            raise NotFound(error.message, hint=hint) from error

    def _source(self) -> Store:
        from airflow_provider_kitops.oci.store import Store, StoreConfig

        if self.source_conn_id:
            return KitopsHook(self.source_conn_id).store()
        layout = self.source_layout
        return Store(StoreConfig(layout=path_argument(layout, "source_layout") if layout is not None else None))

"""Push a ModelKit: copy it from a local layout to the connection's store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.operators._transfer import TransferOperator

if TYPE_CHECKING:
    from airflow_provider_kitops.oci.reference import Reference
    from airflow_provider_kitops.oci.store import Store


class KitPushOperator(TransferOperator):
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

    template_fields: Sequence[str] = (*TransferOperator.template_fields, "source_conn_id", "source_layout")

    def __init__(
        self, *, source_conn_id: str | None = None, source_layout: str | Path | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if source_conn_id and source_layout:
            raise ValueError("Give source_conn_id or source_layout, not both.")
        self.source_conn_id = source_conn_id
        self.source_layout = source_layout

    def _source(self) -> Store:
        if self.source_conn_id:
            return KitopsHook(self.source_conn_id).store()
        return self._layout(self.source_layout, "source_layout")

    def _destination(self) -> Store:
        return self.hook.store()

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

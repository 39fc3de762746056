"""Copy a ModelKit between the stores of two connections, or inside one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.operators._transfer import TransferOperator

if TYPE_CHECKING:
    from airflow_provider_kitops.oci.store import Store


class KitCopyOperator(TransferOperator):
    """
    Copy a ModelKit from the store of one connection to that of another, or inside one store.

    The manifest arrives byte for byte, so its digest stays; what is there already is not sent again. Inside one
    registry, or one disk, no layer moves at all.

    :param source: the ModelKit to copy: a reference, or the output of another task (templated).
    :param destination: ``repository:tag[,tag…]``; ``None`` means the repository and tag of ``source`` (templated).
    :param tags: further tags (templated).
    :param source_conn_id: where to copy from; ``None`` means ``kitops_conn_id`` (templated).
    :param destination_conn_id: where to copy to; ``None`` means ``kitops_conn_id`` (templated).
    :param referrers: also copy what is attached to it: reports, provenance, signatures.
    :param kitops_conn_id: the connection of the side for which none is given (templated).
    :return: the reference dictionary at the destination, with the bytes that were ``copied``, ``skipped`` (there
        already) and ``mounted`` (taken from another repository of the same registry or disk, without moving them).
    """

    template_fields: Sequence[str] = (*TransferOperator.template_fields, "source_conn_id", "destination_conn_id")

    def __init__(
        self, *, source_conn_id: str | None = None, destination_conn_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.source_conn_id = source_conn_id
        self.destination_conn_id = destination_conn_id

    def _source(self) -> Store:
        return KitopsHook(self.source_conn_id or self.kitops_conn_id).store()

    def _destination(self) -> Store:
        return KitopsHook(self.destination_conn_id or self.kitops_conn_id).store()

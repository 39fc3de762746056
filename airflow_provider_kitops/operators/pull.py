"""Pull a ModelKit: copy it from the connection's store to a local layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.operators._transfer import TransferOperator

if TYPE_CHECKING:
    from airflow_provider_kitops.oci.store import Store


class KitPullOperator(TransferOperator):
    """
    Copy a ModelKit from the connection's store to a local layout of the worker.

    The manifest arrives byte for byte, so its digest stays; what is there already is not fetched again, and a download
    that broke goes on where it was.

    :param source: the ModelKit to copy: a reference, or the output of another task (templated).
    :param destination: ``repository:tag[,tag…]`` in the layout; ``None`` means the repository and tag of ``source``
        (templated).
    :param tags: further tags (templated).
    :param destination_layout: root of the layout; ``None`` means ``$MODELKIT_LAYOUT``, else the user's data directory
        (templated).
    :param referrers: also copy what is attached to it: reports, provenance, signatures.
    :param kitops_conn_id: where to copy from (templated). Its ``mutable_tags`` hold for the layout, too.
    :return: the reference dictionary in the layout, with the bytes that were ``copied``, ``skipped`` (there already)
        and ``mounted`` (taken from another repository of the same disk, without moving them), and the ``layout``: the
        path of the layout's root. A task that goes on with it has a connection whose ``layout`` is that path.
    """

    template_fields: Sequence[str] = (*TransferOperator.template_fields, "destination_layout")

    def __init__(self, *, destination_layout: str | Path | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.destination_layout = destination_layout

    def _source(self) -> Store:
        return self.hook.store()

    def _told(self, destination: Store) -> dict[str, Any]:
        return {"layout": str(destination.layout)}

    def _destination(self) -> Store:
        return self._layout(self.destination_layout, "destination_layout")

"""Remove a ModelKit from its repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._references import ReferenceLike, reference_text
from airflow_provider_kitops.operators._base import KitopsBaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class KitRemoveOperator(KitopsBaseOperator):
    """
    Remove a ModelKit from its repository.

    By tag: the tag, and the ModelKit too if that was its last one. By digest, or by ``force``: the ModelKit and all its
    tags. One that an index of its repository holds is removed by ``force`` only. What is attached to it stays.

    :param reference: ``repository:tag``, a reference by digest, or the output of another task, which is by digest
        (templated).
    :param force: remove the ModelKit whatever other tags it has, and though an index holds it.
    :param missing_ok: that there is no such ModelKit is no error, as after a try of the task that had removed it.
    :param kitops_conn_id: where it is (templated).
    :return: the reference dictionary of what was named, with the ``tags`` that name it still, and whether it was
        ``removed``; ``None`` if it was not there.
    """

    template_fields: Sequence[str] = ("reference", "kitops_conn_id")
    operator_extra_links = ()
    ui_color = "#f4d4d0"

    def __init__(
        self, *, reference: ReferenceLike, force: bool = False, missing_ok: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.reference = reference
        self.force = force
        self.missing_ok = missing_ok

    def _execute(self, context: Context) -> dict[str, Any] | None:
        from airflow_provider_kitops.oci.description import described
        from airflow_provider_kitops.oci.removal import remove

        with self.hook.store() as store:
            where = store.reference(reference_text(self.reference, "reference"))
            done = remove(store.target(where), where, force=self.force, missing_ok=self.missing_ok)
            if done is None:
                return None
            return described(where, done.descriptor, done.tags, size=done.size, removed=done.removed)

"""Remove tags and leave the ModelKits that they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._references import ReferenceLike, reference_text, split_reference
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.operators._base import KitopsBaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class KitUntagOperator(KitopsBaseOperator):
    """
    Remove tags and leave the ModelKits that they name. All are looked up before any is removed.

    :param reference: ``repository:tag[,tag…]``; or a reference by digest, also as the output of another task, with the
        tags in ``tags``: they are then removed only if all of them name this digest (templated).
    :param tags: further tags; at least one tag must be given, here or in ``reference`` (templated).
    :param missing_ok: pass over tags that do not exist, as after a try of the task that had removed them.
    :param kitops_conn_id: where it is (templated).
    :return: the reference dictionary of what the first tag named, with no ``tags``, and ``untagged``, which has the
        digest for each removed tag; ``None`` if no tag was there.
    """

    template_fields: Sequence[str] = ("reference", "tags", "kitops_conn_id")

    def __init__(
        self,
        *,
        reference: ReferenceLike,
        tags: str | Sequence[str] | None = None,
        missing_ok: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reference = reference
        self.tags = tags
        self.missing_ok = missing_ok

    def _execute(self, context: Context) -> dict[str, Any] | None:
        from airflow_provider_kitops.oci.description import described
        from airflow_provider_kitops.oci.removal import readable_size, untag

        name, at, digest = reference_text(self.reference, "reference").partition("@")
        repository, tags = split_reference(name, self.tags)
        with self.hook.store() as store:
            where = store.reference(Reference.parse(f"{repository}{at}{digest}"))
            target = store.target(where)
            found = untag(target, tags, digest=where.digest, missing_ok=self.missing_ok)
            if not found:
                return None
            digests = {tag: descriptor.digest for tag, descriptor in found.items()}
            first = next(iter(found.values()))
            return described(where, first, size=readable_size(target, first), untagged=digests)

"""Give a ModelKit further tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._references import ReferenceLike, reference_text, split_reference
from airflow_provider_kitops.oci.errors import InvalidReference
from airflow_provider_kitops.operators._base import KitopsBaseOperator
from airflow_provider_kitops.operators._settings import is_plain

if TYPE_CHECKING:
    from airflow.sdk import Context


class KitTagOperator(KitopsBaseOperator):
    """
    Give a ModelKit further tags, in its own repository or in another one of the same store.

    A tag that may not move (see the connection's ``mutable_tags``) and names another digest already is an error, and
    none is set then. Between two repositories of one store no layer moves.

    :param reference: the ModelKit: a reference, or the output of another task (templated).
    :param destination: ``repository[:tag[,tag…]]``; ``None`` means the repository of ``reference`` (templated).
    :param tags: further tags; at least one tag must be given, here or in ``destination`` (templated).
    :param kitops_conn_id: where it is (templated).
    :return: the reference dictionary in the repository of the tags, with the ``tags`` that were asked for.
    """

    template_fields: Sequence[str] = ("reference", "destination", "tags", "kitops_conn_id")

    def __init__(
        self,
        *,
        reference: ReferenceLike,
        destination: str | None = None,
        tags: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        named = is_plain(destination) and ":" in (destination or "").rpartition("/")[2]
        if is_plain(tags) and not tags and is_plain(destination) and not named:
            raise InvalidReference(
                f"Task {self.task_id} names no tag to set.", hint="Give tags, or a destination such as repository:tag."
            )
        self.reference = reference
        self.destination = destination
        self.tags = tags

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kitops.oci import progress
        from airflow_provider_kitops.oci.retag import retag

        with self.hook.store() as store, progress.lines(self.log) as on_progress:
            origin = store.reference(reference_text(self.reference, "reference"))
            wanted = origin.name if self.destination is None else reference_text(self.destination, "destination")
            repository, tags = split_reference(wanted, self.tags, "destination")
            where = store.reference(repository)
            pinned, descriptor = store.resolve(origin)
            retag(
                store.target(pinned),
                descriptor,
                store.target(where),
                tags,
                mutable_tags=store.config.mutable_tags,
                concurrency=store.config.concurrency,
                on_progress=on_progress,
            )
            return describe(store, where.at(descriptor.digest), tags=tags)

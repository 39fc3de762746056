"""Unpack a ModelKit into a directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._arguments import path_argument, settings_of, texts_of
from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._references import ReferenceLike, reference_text
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.operators._base import KitopsBaseOperator
from airflow_provider_kitops.operators._settings import check_absolute

if TYPE_CHECKING:
    from airflow.sdk import Context


class KitUnpackOperator(KitopsBaseOperator):
    """
    Unpack a ModelKit into a directory of the worker.

    Content is checked against its digest before it becomes visible, and nothing is written outside the directory.

    :param reference: a reference, or the output of another task (templated).
    :param directory: where to unpack to, absolute; made if it does not exist (templated).
    :param filters: what to unpack, in kit's grammar: ``model``, ``datasets:train,test``; empty means all. A name
        or path that nothing has is an error; a kind of which there is nothing is warned about (templated).
    :param overwrite: replace files that are there.
    :param ignore_existing: leave files that are there as they are.
    :param allow_case_collisions: also unpack names that are one and the same on disks of macOS and Windows, such as
        ``a`` and ``A``; without it they are an error.
    :param include_remote: also unpack the datasets that other ModelKits hold, or S3 (``remotePath``); without it they
        are only warned about.
    :param labels: which ModelKit to take, where the reference names an index of several (templated).
    :param parents: first unpack the model of the ModelKit that this one's Kitfile names as its base.
    :param kitops_conn_id: where to unpack from (templated).
    :return: the reference dictionary, with the ``directory``, and ``unpacked``: false if nothing passes the filters.
    """

    template_fields: Sequence[str] = ("reference", "directory", "filters", "labels", "kitops_conn_id")

    def __init__(
        self,
        *,
        reference: ReferenceLike,
        directory: str | Path,
        filters: str | Sequence[str] = (),
        overwrite: bool = False,
        ignore_existing: bool = False,
        allow_case_collisions: bool = False,
        include_remote: bool = False,
        labels: Mapping[str, str] | None = None,
        parents: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_absolute(directory, "directory", self.task_id)
        if overwrite and ignore_existing:
            raise InvalidInput(f"Task {self.task_id} is to overwrite existing files and to leave them: not both.")
        self.reference = reference
        self.directory = directory
        self.filters = filters
        self.overwrite = overwrite
        self.ignore_existing = ignore_existing
        self.allow_case_collisions = allow_case_collisions
        self.include_remote = include_remote
        self.labels = labels
        self.parents = parents

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kitops.modelkit.filters import Filters
        from airflow_provider_kitops.modelkit.parents import parents_of
        from airflow_provider_kitops.modelkit.unpack import unpack
        from airflow_provider_kitops.oci import progress

        directory = path_argument(self.directory, "directory")
        filters = texts_of(self.filters, "filters")
        with self.hook.store() as store, progress.lines(self.log) as on_progress:
            asked = store.reference(reference_text(self.reference, "reference"))
            pinned, descriptor = store.resolve(asked)
            made = unpack(
                store.target(pinned),
                descriptor.digest,
                directory,
                filters,
                overwrite=self.overwrite,
                ignore_existing=self.ignore_existing,
                allow_case_collisions=self.allow_case_collisions,
                include_remote=self.include_remote,
                labels=settings_of(self.labels, "labels"),
                parents=parents_of(store) if self.parents else None,
                concurrency=store.config.concurrency,
                on_progress=on_progress,
            )
            some = Filters.parse(filters).selects(made, include_remote=self.include_remote)
            tags = [asked.tag] if asked.tag and not asked.digest else []
            return describe(
                store, pinned.at(made.descriptor.digest), tags=tags, directory=str(directory), unpacked=some
            )

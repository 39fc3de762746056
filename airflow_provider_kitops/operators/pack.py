"""Pack a context directory into a ModelKit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from airflow_provider_kitops.hooks._arguments import path_argument, settings_of
from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._references import reference_text, split_reference
from airflow_provider_kitops.modelkit.forms import Compression, LayerFormat, ManifestFormat
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.operators._base import KitopsBaseOperator
from airflow_provider_kitops.operators._settings import check_absolute, check_choice

if TYPE_CHECKING:
    from airflow.sdk import Context


class KitPackOperator(KitopsBaseOperator):
    """
    Pack a context directory straight into the connection's store, and tag it.

    Nothing is staged on disk for a registry. Packing the same files again gives the same digest and uploads nothing.

    :param context_directory: directory that holds the files; absolute (templated).
    :param reference: ``repository:tag[,tag…]``, or a repository alone for no tag (templated). A tag that may not move
        (see the connection's ``mutable_tags``) and names another digest already is an error.
    :param kitfile: the Kitfile: a path (relative to the worker's directory), or its content as a mapping; ``None``
        means ``Kitfile`` in the context directory (templated).
    :param tags: further tags (templated).
    :param annotations: annotations of the manifest; they change its digest (templated).
    :param created: RFC 3339 time to write into the manifest, which changes its digest; ``None`` writes none
        (templated).
    :param compression: of the layers: ``none``, ``gzip``, ``gzip-fastest`` or ``zstd``.
    :param layer_format: ``tar``, or ``raw`` where each layer is one file as it is.
    :param manifest_format: ``modelkit``, ``modelkit-v1.7`` for kit 1.7, or ``modelpack`` for a CNCF ModelPack.
    :param kitops_conn_id: where to pack to (templated).
    :return: the reference dictionary, with the ModelKit's ``name`` and ``version``.
    """

    template_fields: Sequence[str] = (
        "context_directory",
        "reference",
        "kitfile",
        "tags",
        "annotations",
        "created",
        "kitops_conn_id",
    )

    def __init__(
        self,
        *,
        context_directory: str | Path,
        reference: str,
        kitfile: str | Path | Mapping[str, Any] | None = None,
        tags: str | Sequence[str] | None = None,
        annotations: Mapping[str, str] | None = None,
        created: str | None = None,
        compression: Compression = "none",
        layer_format: LayerFormat = "tar",
        manifest_format: ManifestFormat = "modelkit",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_absolute(context_directory, "context_directory", self.task_id)
        check_choice(compression, "compression", self.task_id, get_args(Compression))
        check_choice(layer_format, "layer_format", self.task_id, get_args(LayerFormat))
        check_choice(manifest_format, "manifest_format", self.task_id, get_args(ManifestFormat))
        self.context_directory = context_directory
        self.reference = reference
        self.kitfile = kitfile
        self.tags = tags
        self.annotations = annotations
        self.created = created
        self.compression = compression
        self.layer_format = layer_format
        self.manifest_format = manifest_format

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kitops.modelkit.kitfile import Kitfile, parse_kitfile
        from airflow_provider_kitops.modelkit.pack import pack
        from airflow_provider_kitops.modelkit.parents import parents_of
        from airflow_provider_kitops.oci import progress

        directory = path_argument(self.context_directory, "context_directory")
        kitfile: Kitfile | Path | None
        if isinstance(self.kitfile, Mapping):
            kitfile = parse_kitfile(json.dumps(self.kitfile), name=f"kitfile of task {self.task_id}")
        else:
            kitfile = path_argument(self.kitfile, "kitfile") if self.kitfile is not None else None
        repository, tags = split_reference(reference_text(self.reference, "reference"), self.tags)
        with self.hook.store() as store, progress.lines(self.log) as on_progress:
            where = store.reference(repository)
            made = pack(
                directory,
                kitfile,
                store.target(where),
                tags,
                mutable_tags=store.config.mutable_tags,
                created=_moment(self.created),
                annotations=settings_of(self.annotations, "annotations"),
                compression=self.compression,
                layer_format=self.layer_format,
                manifest_format=self.manifest_format,
                concurrency=store.config.concurrency,
                on_progress=on_progress,
                parents=parents_of(store),
            )
            package = made.kitfile.package
            return describe(
                store,
                where.at(made.descriptor.digest),
                tags=tags,
                name=package.name if package else "",
                version=package.version if package else "",
            )


def _moment(value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InvalidInput(
            f"created is {value!r:.200}, not a time.", hint="Give RFC 3339, such as 2026-01-31T12:00:00Z."
        ) from None

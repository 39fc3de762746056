"""Look at ModelKits: their Kitfile, manifest and config, what differs, and which there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._arguments import settings_of
from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._references import ReferenceLike, reference_text
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidReference
from airflow_provider_kitops.operators._base import KitopsBaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_kitops.oci.reference import Reference
    from airflow_provider_kitops.oci.store import Store
    from airflow_provider_kitops.oci.target import Target


#: What one task hands to the next is small.
_MOST_FILES = 1000


class _ReadOperator(KitopsBaseOperator):
    """Base of the operators that read one ModelKit, or an index."""

    template_fields: Sequence[str] = ("reference", "labels", "kitops_conn_id")

    def __init__(self, *, reference: ReferenceLike, labels: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reference = reference
        self.labels = labels

    def _where(self, store: Store) -> tuple[Reference, Target, dict[str, str]]:
        """The reference, pinned, its repository, and the labels."""
        pinned, _ = store.resolve(reference_text(self.reference, "reference"))
        return pinned, store.target(pinned), settings_of(self.labels, "labels")


class KitInfoOperator(_ReadOperator):
    """
    Read the Kitfile of a ModelKit, or one field of it.

    :param reference: a reference, or the output of another task (templated).
    :param labels: which ModelKit to take, where the reference names an index of several (templated).
    :param field: path of the field, such as ``.model.parts[0].name``; ``None`` means all (templated).
    :param kitops_conn_id: where it is (templated).
    :return: the reference dictionary, with the ``kitfile``, or with ``field`` and ``value``.
    """

    template_fields: Sequence[str] = (*_ReadOperator.template_fields, "field")

    def __init__(self, *, field: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.field = field

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kitops.modelkit.fields import field_of
        from airflow_provider_kitops.modelkit.modelkit import ModelKit

        if self.field == "":
            raise InvalidInput(
                "field is empty, as a template makes it of nothing.", hint="Give a path, or None for all."
            )
        with self.hook.store() as store:
            pinned, target, labels = self._where(store)
            kit = ModelKit.read(target, pinned.digest, labels)
            reference = pinned.at(kit.descriptor.digest)
            if self.field is None:
                return describe(store, reference, kitfile=field_of(kit.kitfile, ""))
            return describe(store, reference, field=self.field, value=field_of(kit.kitfile, self.field))


class KitInspectOperator(_ReadOperator):
    """
    Read the manifest and the config of a ModelKit, or what an index of ModelKits holds.

    :param reference: a reference, or the output of another task (templated).
    :param labels: which ModelKit to take, where the reference names an index of several; without them it is the index
        that is read (templated).
    :param kitops_conn_id: where it is (templated).
    :return: the reference dictionary, with the ``manifest`` and the ``config`` as JSON values; of an index, the
        ``manifest`` and its ``modelkits``, each with ``digest`` and ``labels``.
    """

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kitops.modelkit.inspect import inspect

        with self.hook.store() as store:
            pinned, target, labels = self._where(store)
            found, fields = inspect(target, pinned.digest, labels)
            return describe(store, pinned.at(found.digest), **fields)


class KitDiffOperator(KitopsBaseOperator):
    """
    Compare two ModelKits: fields of the Kitfile, layers, and on request the files inside layers.

    :param old: a reference, or the output of another task (templated).
    :param new: the same (templated).
    :param old_labels: which ModelKit to take, where ``old`` names an index of several (templated).
    :param new_labels: the same for ``new`` (templated).
    :param files: also compare files, which reads the layers that differ, and no others.
    :param kitops_conn_id: where they are (templated).
    :return: the reference dictionary of ``new``, with ``old`` (pinned), ``identical``, ``fields``, ``layers`` and, on
        request, the first 1,000 ``files`` and how many ``more_files`` there are.
    """

    template_fields: Sequence[str] = ("old", "new", "old_labels", "new_labels", "kitops_conn_id")

    def __init__(
        self,
        *,
        old: ReferenceLike,
        new: ReferenceLike,
        old_labels: Mapping[str, str] | None = None,
        new_labels: Mapping[str, str] | None = None,
        files: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.old = old
        self.new = new
        self.old_labels = old_labels
        self.new_labels = new_labels
        self.files = files

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kitops.modelkit.diff import diff, diff_files
        from airflow_provider_kitops.modelkit.modelkit import ModelKit
        from airflow_provider_kitops.oci import progress

        with self.hook.store() as store, progress.lines(self.log) as on_progress:
            (old, one), (new, other) = (
                store.resolve(reference_text(value, name)) for name, value in (("old", self.old), ("new", self.new))
            )
            ours, theirs = store.target(old), store.target(new)
            before = ModelKit.read(ours, one.digest, settings_of(self.old_labels, "old_labels"))
            after = ModelKit.read(theirs, other.digest, settings_of(self.new_labels, "new_labels"))
            found = diff(before, after)
            old, new = old.at(before.descriptor.digest), new.at(after.descriptor.digest)
            answer = describe(store, new, tags=[], old=str(old), **found.to_json())
            if self.files:
                files = [
                    asdict(file)
                    for change in found.layers
                    for file in diff_files(ours, theirs, change, on_progress=on_progress)
                ]
                answer |= {"files": files[:_MOST_FILES], "more_files": max(0, len(files) - _MOST_FILES)}
            return answer


class KitListOperator(KitopsBaseOperator):
    """
    List the tagged ModelKits of a repository, and its tagged indexes of ModelKits.

    :param repository: the repository (templated).
    :param kitops_conn_id: where it is (templated).
    :return: a list of ``{"reference", "kind", "digest", "tags", "size", "name", "version"}``, one for each; the
        ``kind`` is ``modelkit`` or ``index``, and an index has ``modelkits``, each with ``digest`` and ``labels``.
    """

    template_fields: Sequence[str] = ("repository", "kitops_conn_id")
    operator_extra_links = ()

    def __init__(self, *, repository: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.repository = repository

    def _execute(self, context: Context) -> list[dict[str, Any]]:
        from airflow_provider_kitops.modelkit.listing import list_modelkits

        with self.hook.store() as store:
            where = store.reference(reference_text(self.repository, "repository"))
            if where.selector:
                raise InvalidReference(
                    f"{self.repository!r} names one ModelKit, not a repository.", hint="Use KitInfoOperator."
                )
            store.check_repository(where)
            return [
                {"reference": str(where.at(entry.digest)), **entry.to_json()}
                for entry in list_modelkits(store.target(where))
            ]

"""The dictionary that every operator returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.oci import description

if TYPE_CHECKING:
    from airflow_provider_kitops.oci.reference import Reference
    from airflow_provider_kitops.oci.store import Store


def describe(
    store: Store, reference: str | Reference, *, tags: Sequence[str] | None = None, **fields: Any
) -> dict[str, Any]:
    """Read a manifest back and describe it as every operator does.

    :param store: where to look.
    :param reference: tag or digest.
    :param tags: tags to report; without them, the tag of ``reference`` if it has one.
    :param fields: the operator's own small fields.
    :return: ``reference`` (pinned to the digest), ``digest``, ``tags``, ``size`` (bytes of manifest, config and
        layers), ``media_type``, and ``fields``.
    :raises NotFound: there is no such manifest.
    """
    asked = store.reference(reference)
    pinned, descriptor = store.resolve(asked)
    if tags is None:
        tags = [asked.tag] if asked.tag and not asked.digest else []
    return description.describe(store.target(pinned), pinned, descriptor, tags, **fields)

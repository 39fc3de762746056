"""Naming a manifest again, in its own repository or in another one of the same place."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_kitops.oci.copy import copy
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import InvalidReference
from airflow_provider_kitops.oci.tagging import apply_tags
from airflow_provider_kitops.oci.target import ProgressHook, Target


def retag(
    source: Target,
    descriptor: Descriptor,
    destination: Target,
    tags: Sequence[str],
    *,
    mutable_tags: Sequence[str],
    concurrency: int = 5,
    on_progress: ProgressHook | None = None,
) -> None:
    """Make each of ``tags`` name the manifest. All are checked before any is set.

    Between two repositories of one registry or disk no bytes move: the destination takes the blobs from its sibling.

    :param source: the repository that holds the manifest.
    :param destination: the repository whose tags are meant; the same or another one.
    :param mutable_tags: patterns of the tags that may move from another manifest.
    :raises Conflict: a tag that may not move names another manifest; nothing has changed then.
    :raises NotFound: ``source`` does not hold the manifest.
    :raises InvalidReference: no tag is given, or one is malformed.
    """
    if not tags:
        raise InvalidReference(f"No tag of {destination.name} is named.", hint="Write repository:tag.")
    if destination.name == source.name:
        apply_tags(destination, descriptor, tags, mutable=mutable_tags)
        return
    copy(
        source,
        descriptor.digest,
        destination,
        tags,
        concurrency=concurrency,
        mutable_tags=mutable_tags,
        on_progress=on_progress,
    )

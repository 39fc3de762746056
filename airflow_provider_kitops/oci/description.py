"""What operators and the command say about a manifest, in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.reference import Reference

if TYPE_CHECKING:
    from airflow_provider_kitops.oci.target import Target


def describe(
    target: Target, reference: Reference, descriptor: Descriptor, tags: Sequence[str] | None = None, **fields: Any
) -> dict[str, Any]:
    """Read a manifest and describe it as ``described`` does.

    :param target: the repository that holds it.
    :param tags: the tags to report; None = the tag that ``reference`` asks by, if it does.
    :raises NotFound: it does not.
    """
    if tags is None:
        tags = (reference.tag,) if reference.tag and not reference.digest else ()
    return described(reference, descriptor, tags, size=size_of(target, descriptor), **fields)


def described(
    reference: Reference, descriptor: Descriptor, tags: Sequence[str] = (), *, size: int, **fields: Any
) -> dict[str, Any]:
    """The answer about one manifest.

    :param reference: its repository, with or without tag and digest.
    :param tags: the tags to report.
    :param size: bytes of the manifest and all that it names: config and layers, or the manifests of an index.
    :param fields: what the operator or verb adds.
    :return: ``reference`` (pinned to the digest), ``digest``, ``tags``, ``size``, ``media_type``, and ``fields``.
    """
    return {
        "reference": str(reference.at(descriptor.digest)),
        "digest": descriptor.digest,
        "tags": list(tags),
        "size": size,
        "media_type": descriptor.media_type,
        **fields,
    }


def size_of(target: Target, descriptor: Descriptor) -> int:
    """Bytes of a manifest and all that it names: config and layers, or the manifests of an index.

    :raises NotFound: the target does not hold it.
    """
    from airflow_provider_kitops.oci.content import read
    from airflow_provider_kitops.oci.manifest import Links

    links = Links.parse(descriptor.media_type, read(target, descriptor))
    return descriptor.size + sum(part.size for part in (*links.blobs, *links.manifests))

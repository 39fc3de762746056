"""Removing ModelKits, and tags alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_kitops.oci.description import size_of
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import Conflict, InvalidInput, InvalidReference, NotFound, VerificationFailed
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.oci.target import Target


@dataclass(frozen=True)
class Removal:
    """What a removal did.

    :param descriptor: the manifest that was named.
    :param size: bytes of the manifest and all that it names.
    :param tags: those that name it still; it was removed itself if there are none.
    """

    descriptor: Descriptor
    size: int
    tags: tuple[str, ...] = ()

    @property
    def removed(self) -> bool:
        """Whether the manifest itself is gone, and not just a tag of it."""
        return not self.tags


def remove(target: Target, reference: Reference, *, force: bool = False) -> Removal:
    """Remove a manifest. By tag: the tag, and the manifest too if that was its last one. By digest: with all its tags.

    :param reference: of the target's repository, with a tag or a digest.
    :param force: remove the manifest by tag, too, whatever other tags it has.
    :raises NotFound: there is no such manifest.
    :raises Forbidden: the registry is set up not to delete.
    :raises InvalidReference: neither tag nor digest is named; nothing is ever removed by a default.
    """
    if not reference.selector:
        raise InvalidReference(f"{reference} names neither tag nor digest.", hint="Write repository:tag.")
    descriptor = target.resolve(reference.selector)
    others: tuple[str, ...] = ()
    if not reference.digest and not force:
        others = tuple(
            tag for tag in target.tags() if tag != reference.tag and target.resolve(tag).digest == descriptor.digest
        )
    removal = Removal(descriptor, readable_size(target, descriptor), others)  # read while it is still there
    if removal.removed:
        target.delete(descriptor)
    else:
        target.untag(reference.tag)
    return removal


def untag(target: Target, tags: Sequence[str], *, digest: str = "", missing_ok: bool = False) -> dict[str, Descriptor]:
    """Remove tags and leave what they name. All are looked up before any is removed.

    :param digest: what each of them must name; empty = anything.
    :param missing_ok: pass over tags that there are not.
    :return: the tags that were removed, with what they named.
    :raises NotFound: one of them does not exist; nothing was removed then.
    :raises Conflict: one of them names another manifest than ``digest``; nothing was removed then.
    :raises Forbidden: the registry is set up not to delete.
    :raises InvalidReference: no tag is given.
    """
    if not tags:
        raise InvalidReference(f"No tag of {target.name} is named.", hint="Write repository:tag.")
    found: dict[str, Descriptor] = {}
    for tag in tags:
        try:
            found[tag] = target.resolve(tag)
        except NotFound:
            if not missing_ok:
                raise
    for tag, descriptor in found.items():
        if digest and descriptor.digest != digest:
            raise Conflict(
                f"Tag {tag} of {target.name} names {descriptor.digest} and not {digest}, so it is left alone.",
                hint="Somebody has moved it. To remove it whatever it names, leave out the digest.",
            )
    for tag in found:
        target.untag(tag)
    return found


def readable_size(target: Target, descriptor: Descriptor) -> int:
    """Bytes of a manifest and all that it names; of one that cannot be understood, its own."""
    try:
        return size_of(target, descriptor)
    except (InvalidInput, VerificationFailed):  # what is damaged can be removed all the same
        return descriptor.size

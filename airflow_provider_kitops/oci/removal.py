"""Removing ModelKits, and tags alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, overload

from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.description import size_of
from airflow_provider_kitops.oci.descriptor import DOCKER_INDEX, INDEX, Descriptor
from airflow_provider_kitops.oci.errors import (
    Conflict,
    InvalidInput,
    InvalidReference,
    LimitExceeded,
    NotFound,
    VerificationFailed,
)
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.manifest import Links
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


@overload
def remove(
    target: Target, reference: Reference, *, force: bool = False, missing_ok: Literal[False] = False
) -> Removal: ...


@overload
def remove(
    target: Target, reference: Reference, *, force: bool = False, missing_ok: bool = False
) -> Removal | None: ...


def remove(target: Target, reference: Reference, *, force: bool = False, missing_ok: bool = False) -> Removal | None:
    """Remove a manifest. By tag: the tag, and the manifest too if that was its last one. By digest: with all its tags.

    What is attached to it stays.

    :param reference: of the target's repository, with a tag or a digest.
    :param force: remove the manifest whatever other tags it has, and though an index holds it.
    :param missing_ok: that there is no such manifest is no error.
    :return: what was done; None if there was no such manifest.
    :raises NotFound: there is no such manifest.
    :raises Conflict: an index of the repository holds the manifest, and would be broken. In a registry only tagged
        indexes are found.
    :raises Forbidden: the registry is set up not to delete.
    :raises InvalidReference: neither tag nor digest is named; nothing is ever removed by a default.
    """
    if not reference.selector:
        raise InvalidReference(f"{reference} names neither tag nor digest.", hint="Write repository:tag.")
    try:
        descriptor = target.resolve(reference.selector)
    except NotFound:
        if not missing_ok:
            raise
        return None
    others: tuple[str, ...] = ()
    if not force:
        named = _named(target)
        if not reference.digest:
            others = tuple(
                tag for tag, each in named.items() if tag != reference.tag and each.digest == descriptor.digest
            )
        if not others:
            _check_unlisted(target, descriptor, named)
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
    :raises NotFound: one of them does not exist; nothing was removed then, unless it has vanished since it was looked
        up.
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
    removed: dict[str, Descriptor] = {}
    for tag, descriptor in found.items():
        try:
            target.untag(tag)
        except NotFound:  # somebody else has removed it meanwhile
            if not missing_ok:
                raise
        else:
            removed[tag] = descriptor
    return removed


def readable_size(target: Target, descriptor: Descriptor) -> int:
    """Bytes of a manifest and all that it names; of one that cannot be understood, its own."""
    try:
        return size_of(target, descriptor)
    except (InvalidInput, LimitExceeded, NotFound, VerificationFailed):  # what is damaged can be removed all the same
        return descriptor.size


def _named(target: Target) -> dict[str, Descriptor]:
    """What each tag names."""
    named = {}
    for tag in target.tags():
        try:
            named[tag] = target.resolve(tag)
        except NotFound:  # removed meanwhile, which says nothing of what is to be removed here
            continue
    return named


def _check_unlisted(target: Target, descriptor: Descriptor, named: Mapping[str, Descriptor]) -> None:
    """Refuse a manifest that an index of the repository holds.

    Of a registry's manifests only those with tags are known.

    :param named: the manifests with tags.
    """
    known = {each.digest: each for each in named.values()}
    if isinstance(target, Layout):
        known |= {each.digest: each for each in target.manifests()}
    for index in known.values():
        if index.media_type in (INDEX, DOCKER_INDEX) and descriptor.digest in _listed(target, index):
            tags = [tag for tag, each in named.items() if each.digest == index.digest]
            raise Conflict(
                f"The index {', '.join([*tags, index.digest])} of {target.name} holds {descriptor.digest}, and would "
                "be broken without it.",
                hint="Remove the index first, or only untag this one; or force it: --force, force=True.",
            )


def _listed(target: Target, index: Descriptor) -> set[str]:
    """Digests of what an index holds; of one that cannot be read, none: it is broken already."""
    try:
        links = Links.parse(index.media_type, read(target, index))
    except (InvalidInput, LimitExceeded, NotFound, VerificationFailed):
        return set()
    return {part.digest for part in links.manifests}

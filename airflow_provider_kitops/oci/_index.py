"""``index.json`` of a layout (image layout specification 1.1): which manifests it has, and their tags.

Every manifest is listed, once per tag, or once without a tag, so that any OCI tool can see and keep all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airflow_provider_kitops.oci.descriptor import INDEX, Descriptor
from airflow_provider_kitops.oci.errors import InvalidInput, VerificationFailed

REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class LayoutIndex:
    """The entries of an ``index.json``; changes give a new one.

    :param entries: descriptors in file order, the tag among their annotations.
    :param more: fields of the file that are none of our business, kept as they are.
    """

    entries: tuple[Descriptor, ...] = ()
    more: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, data: bytes, path: Path) -> LayoutIndex:
        """Read the file.

        :raises VerificationFailed: it is not an image index.
        """
        try:
            value = json.loads(data)
            entries = tuple(Descriptor.from_json(entry) for entry in _manifests(value))
        except (ValueError, RecursionError, InvalidInput) as error:
            raise VerificationFailed(
                f"{path} is not the index of an OCI image layout: {error}",
                hint="It was damaged or is something else: name another layout, or restore the file.",
            ) from error
        known = ("schemaVersion", "mediaType", "manifests")
        return cls(entries, tuple((key, item) for key, item in value.items() if key not in known))

    def to_bytes(self) -> bytes:
        """The file's content."""
        manifests = [entry.to_json() for entry in self.entries]
        value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, **dict(self.more)}
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def tagged(self, tag: str) -> Descriptor | None:
        """The manifest that ``tag`` names."""
        return next((entry for entry in self.entries if entry.annotations.get(REF_NAME) == tag), None)

    def listed(self, digest: str) -> Descriptor | None:
        """The manifest of that digest."""
        return next((entry for entry in self.entries if entry.digest == digest), None)

    def tags(self) -> list[str]:
        """All tags, sorted."""
        return sorted({name for entry in self.entries if (name := entry.annotations.get(REF_NAME))})

    def manifests(self) -> Iterator[Descriptor]:
        """Each manifest once, without its tag."""
        seen = set()
        for entry in self.entries:
            if entry.digest not in seen:
                seen.add(entry.digest)
                yield untagged(entry)

    def with_manifest(self, descriptor: Descriptor) -> LayoutIndex:
        """With the manifest listed, whatever its tags are."""
        if self.listed(descriptor.digest):
            return self
        return replace(self, entries=(*self.entries, untagged(descriptor)))

    def with_tag(self, descriptor: Descriptor, tag: str) -> LayoutIndex:
        """With ``tag`` naming the manifest; what it named before stays listed."""
        before = self.without_tag(tag)
        known = untagged(before.listed(descriptor.digest) or descriptor)
        entry = replace(known, annotations={**known.annotations, REF_NAME: tag})
        kept = tuple(
            item for item in before.entries if item.digest != descriptor.digest or REF_NAME in item.annotations
        )
        return replace(self, entries=(*kept, entry))

    def without_tag(self, tag: str) -> LayoutIndex:
        """With ``tag`` gone and its manifest still listed."""
        removed = self.tagged(tag)
        if removed is None:
            return self
        kept = replace(self, entries=tuple(e for e in self.entries if e.annotations.get(REF_NAME) != tag))
        return kept.with_manifest(removed)

    def without_manifest(self, digest: str) -> LayoutIndex:
        """With the manifest and all its tags gone."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.digest != digest))


def _manifests(value: Any) -> list[Any]:
    # What is not understood must not count as empty: the next change would write over it.
    if not isinstance(value, dict) or value.get("schemaVersion") != 2:
        raise InvalidInput("It is no object with schemaVersion 2.")
    # Go's tools write null for an empty list.
    items = value.get("manifests", False)
    if items is None:
        return []
    if not isinstance(items, list):
        raise InvalidInput("It has no list of manifests.")
    return items


def untagged(descriptor: Descriptor) -> Descriptor:
    """The same without the annotation that holds a tag."""
    annotations = {key: value for key, value in descriptor.annotations.items() if key != REF_NAME}
    return replace(descriptor, annotations=annotations)

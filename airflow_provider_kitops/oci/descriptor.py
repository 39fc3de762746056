"""Content by digest: descriptors and media types (OCI image specification 1.1, descriptor.md, manifest.md)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kitops.oci.errors import InvalidInput

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
EMPTY = "application/vnd.oci.empty.v1+json"
OCTET_STREAM = "application/octet-stream"

MANIFEST_TYPES = (MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX)

#: Manifests and configs are read into memory; larger ones are refused (distribution spec 1.1, "Pushing Manifests").
MAX_MANIFEST_SIZE = 4 * 1024 * 1024

_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")


def is_digest(text: str) -> bool:
    """Whether ``text`` is a whole, well-formed digest of a registered algorithm."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(data: bytes) -> str:
    """The canonical (SHA-256) digest of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Descriptor:
    """Names content by media type, digest and size.

    :param media_type: type of the content.
    :param digest: ``algorithm:hex``.
    :param size: bytes.
    :param annotations: free text by key; no part of the identity.
    :param artifact_type: type of the artifact, where the content is a manifest that names one.
    :raises InvalidInput: malformed digest or negative size.
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    artifact_type: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not is_digest(self.digest):
            raise InvalidInput(f"Malformed digest {self.digest[:100]!r} in a descriptor.")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 0:
            raise InvalidInput(f"Malformed size {self.size!r} in the descriptor of {self.digest}.")

    @property
    def is_manifest(self) -> bool:
        """Whether the content is a manifest or index, which registries keep apart from blobs."""
        return self.media_type in MANIFEST_TYPES

    @classmethod
    def of(cls, media_type: str, data: bytes, **more: Any) -> Descriptor:
        """The descriptor of ``data``."""
        return cls(media_type, digest_of(data), len(data), **more)

    @classmethod
    def from_json(cls, value: Any) -> Descriptor:
        """Read a descriptor out of a parsed manifest, index or referrers answer.

        :raises InvalidInput: a field is missing or has another type than the specification says.
        """
        try:
            media_type, digest, size = value["mediaType"], value["digest"], value["size"]
            annotations = value.get("annotations") or {}
            artifact_type = value.get("artifactType")
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(f"Malformed descriptor: {str(value)[:200]}") from error
        texts = [media_type, digest, *annotations.keys(), *annotations.values()]
        if not all(isinstance(text, str) for text in texts):
            raise InvalidInput(f"Malformed descriptor: {str(value)[:200]}")
        return cls(media_type, digest, size, annotations, artifact_type)

    def to_json(self) -> dict[str, Any]:
        """The descriptor as the specification writes it, keys in its order."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        return value

"""Content by digest: descriptors and media types (OCI image specification 1.1, descriptor.md, manifest.md)."""

from __future__ import annotations

import hashlib
import re
import reprlib
from collections.abc import Callable, Mapping
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

#: Sizes are 64-bit numbers to every other tool; Python alone would count on.
_MAX_SIZE = 2**63 - 1

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
    :raises InvalidInput: malformed digest, or a size that is negative or has more than 63 bits.
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    artifact_type: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not is_digest(self.digest):
            raise InvalidInput(f"Malformed digest {self.digest[:100]!r} in a descriptor.")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 0 <= self.size <= _MAX_SIZE:
            raise InvalidInput(f"Malformed size {reprlib.repr(self.size)} in the descriptor of {self.digest}.")

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
        if not isinstance(value, dict):
            raise InvalidInput(f"Malformed descriptor: {reprlib.repr(value)} is no object.")
        for key, may_be, what in _FIELDS:
            if not may_be(value.get(key)):
                raise InvalidInput(f"Malformed descriptor: its {key} is {reprlib.repr(value.get(key))}, not {what}.")
        return cls(
            value["mediaType"],
            value["digest"],
            value["size"],
            value.get("annotations") or {},
            value.get("artifactType"),
        )

    def to_json(self) -> dict[str, Any]:
        """The descriptor as the specification writes it, keys in its order."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        return value


def is_text(value: Any) -> bool:
    """Whether ``value`` is text that has a UTF-8 form: JSON can write half of a surrogate pair, which has none."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def are_annotations(value: Any) -> bool:
    """Whether ``value`` is an object of texts, or null (image specification 1.1, annotations.md)."""
    return value is None or (
        isinstance(value, dict) and all(is_text(key) and is_text(text) for key, text in value.items())
    )


def _optional_text(value: Any) -> bool:
    return value is None or is_text(value)


def _optional_texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(is_text(text) for text in value))


def _optional_object(value: Any) -> bool:
    return value is None or isinstance(value, dict)


# The fields of a descriptor, those included that nothing here uses: other tools refuse what has a wrong type.
_FIELDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("mediaType", is_text, "text"),
    ("digest", is_text, "text"),
    ("size", lambda value: isinstance(value, int), "a number of bytes"),
    ("annotations", are_annotations, "an object of texts"),
    ("artifactType", _optional_text, "text"),
    ("urls", _optional_texts, "a list of texts"),
    ("platform", _optional_object, "an object"),
    ("data", _optional_text, "text"),
)

"""What any manifest or index says about other content (image specification 1.1, manifest.md, image-index.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from airflow_provider_kitops.oci.descriptor import DOCKER_INDEX, EMPTY, INDEX, Descriptor, are_annotations, is_text
from airflow_provider_kitops.oci.errors import InvalidInput


@dataclass(frozen=True)
class Links:
    """The content that a manifest needs, and the one that it is about.

    :param manifests: manifests that an index lists.
    :param blobs: config and layers.
    :param subject: the manifest that this one refers to.
    :param artifact_type: as the referrers API reports it: its own, or else the config's media type.
    :param annotations: the manifest's own.
    """

    manifests: tuple[Descriptor, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None

    @classmethod
    def parse(cls, media_type: str, data: bytes) -> Links:
        """Read the raw bytes of a manifest or index.

        :raises InvalidInput: they are not one.
        """
        try:
            value = _object(data)
            return cls._index(value) if media_type in (INDEX, DOCKER_INDEX) else cls._manifest(value)
        except (ValueError, RecursionError, InvalidInput) as error:
            raise InvalidInput(f"Not a manifest of type {media_type}: {error}") from error

    @classmethod
    def _index(cls, value: dict[str, Any]) -> Links:
        manifests = tuple(Descriptor.from_json(item) for item in _list(value, "manifests"))
        return cls(manifests, (), _subject(value), _text(value.get("artifactType")), _annotations(value))

    @classmethod
    def _manifest(cls, value: dict[str, Any]) -> Links:
        config = Descriptor.from_json(value["config"]) if "config" in value else None
        blobs = ((config,) if config else ()) + tuple(Descriptor.from_json(item) for item in _list(value, "layers"))
        artifact_type = _text(value.get("artifactType"))
        if not artifact_type and config and config.media_type != EMPTY:
            artifact_type = config.media_type
        return cls((), blobs, _subject(value), artifact_type, _annotations(value))


def _object(data: bytes) -> dict[str, Any]:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise InvalidInput("it is no object.")
    return value


def _list(value: dict[str, Any], key: str) -> list[Any]:
    items = value.get(key)
    if items is None:  # as Go's tools write an empty list
        return []
    if not isinstance(items, list):
        raise InvalidInput(f"{key} is not a list.")
    return items


def _subject(value: dict[str, Any]) -> Descriptor | None:
    subject = value.get("subject")
    return Descriptor.from_json(subject) if subject else None


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if not is_text(value):
        raise InvalidInput("artifactType is not text.")
    return str(value) or None


def _annotations(value: dict[str, Any]) -> dict[str, str]:
    annotations = value.get("annotations")
    if not are_annotations(annotations):
        raise InvalidInput("annotations are not an object of texts.")
    return annotations or {}

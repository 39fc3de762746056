"""The manifest of a ModelKit: media types and annotations, written as newer kits do and read in every form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kitops.modelkit import _gojson
from airflow_provider_kitops.modelkit.kitfile import LayerKind
from airflow_provider_kitops.oci.descriptor import INDEX, MANIFEST, Descriptor, are_annotations, is_text
from airflow_provider_kitops.oci.errors import InvalidInput

ARTIFACT_TYPE = "application/vnd.kitops.modelkit.manifest.v1+json"
CONFIG_TYPE = "application/vnd.kitops.modelkit.config.v1+json"

#: Annotations: path of a layer below the context, what a code layer holds besides code, when the ModelKit was made.
FILE_PATH = "org.cncf.model.filepath"
LAYER_SUBTYPE = "ml.kitops.modelkit.layer-subtype"
CREATED = "org.opencontainers.image.created"

_LAYER_PREFIX = "application/vnd.kitops.modelkit."
_BASE_TYPES = {
    LayerKind.MODEL: "model",
    LayerKind.MODEL_PART: "modelpart",
    LayerKind.CODE: "code",
    LayerKind.DATASET: "dataset",
    LayerKind.DOCS: "docs",
    LayerKind.PROMPT: "code",
}


@dataclass(frozen=True)
class LayerType:
    """What the media type of a layer says.

    :param base: ``model``, ``modelpart``, ``code``, ``dataset``, ``docs`` or ``mcpb``.
    :param form: ``tar`` or ``raw``.
    :param compression: empty, ``gzip`` or ``zstd``.
    """

    base: str
    form: str
    compression: str

    @classmethod
    def parse(cls, media_type: str) -> LayerType | None:
        """The parts of a ModelKit layer's media type; ``None`` for any other media type."""
        if not media_type.startswith(_LAYER_PREFIX):
            return None
        base, version, rest = [*media_type.removeprefix(_LAYER_PREFIX).split(".", 2), "", ""][:3]
        form, _, compression = rest.partition("+")
        return cls(base, form, compression) if version == "v1" and form in ("tar", "raw") else None


def layer_type(kind: LayerKind, compression: str = "none") -> str:
    """The media type of a tar layer."""
    suffix = "" if compression == "none" else f"+{compression}"
    return f"{_LAYER_PREFIX}{_BASE_TYPES[kind]}.v1.tar{suffix}"


def base_type(kind: LayerKind) -> str:
    """The word for ``kind`` in media types."""
    return _BASE_TYPES.get(kind, "mcpb")


@dataclass(frozen=True)
class Manifest:
    """A parsed image manifest (OCI image specification 1.1, manifest.md)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @classmethod
    def parse(cls, data: bytes, name: str) -> Manifest:
        """Read a manifest.

        :param name: what to call it in messages.
        :raises InvalidInput: it is no image manifest, or malformed.
        """
        malformed = InvalidInput(f"The manifest of {name} is malformed.")
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise malformed from error
        if not isinstance(value, dict) or value.get("schemaVersion") != 2:
            raise malformed
        if value.get("mediaType") == INDEX or "manifests" in value:
            raise InvalidInput(f"{name} is an index, not a ModelKit.", hint="Name one of the manifests it lists.")
        layers, annotations = value.get("layers") or [], value.get("annotations") or {}
        artifact_type = value.get("artifactType") or ""
        if "config" not in value or not isinstance(layers, list):
            raise malformed
        if not are_annotations(annotations) or not is_text(artifact_type):
            raise malformed
        return cls(
            Descriptor.from_json(value["config"]),
            tuple(Descriptor.from_json(layer) for layer in layers),
            annotations,
            artifact_type,
        )


def manifest_bytes(config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str]) -> bytes:
    """The manifest of a ModelKit. Equal arguments give equal bytes."""
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if annotations:
        value["annotations"] = dict(sorted(annotations.items()))
    return _gojson.dumps(value)

"""The manifest of a ModelKit: media types and annotations, written as newer kits do and read in every form."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kitops.modelkit import _gojson
from airflow_provider_kitops.modelkit.forms import LayerFormat, ManifestFormat
from airflow_provider_kitops.modelkit.kitfile import LayerKind
from airflow_provider_kitops.oci.descriptor import INDEX, MANIFEST, Descriptor, are_annotations, is_text
from airflow_provider_kitops.oci.errors import InvalidInput

log = logging.getLogger(__name__)

ARTIFACT_TYPE = "application/vnd.kitops.modelkit.manifest.v1+json"
CONFIG_TYPE = "application/vnd.kitops.modelkit.config.v1+json"
#: The same for CNCF ModelPacks (modelpack/model-spec, docs/spec.md).
MODELPACK_ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
MODELPACK_CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"

#: Annotations: path of a layer below the context, mode and size of a raw layer's file, what a code layer holds besides
#: code, the Kitfile of a ModelPack, which kit made it, when it was made, and how other tools name a layer's file.
FILE_PATH = "org.cncf.model.filepath"
FILE_METADATA = "org.cncf.model.file.metadata+json"
LAYER_SUBTYPE = "ml.kitops.modelkit.layer-subtype"
KITFILE = "ml.kitops.modelkit.kitfile"
CLI_VERSION = "ml.kitops.modelkit.cli-version"
CREATED = "org.opencontainers.image.created"
TITLE = "org.opencontainers.image.title"

_KITOPS = "application/vnd.kitops.modelkit."
_CNCF = "application/vnd.cncf.model."
_BASE_TYPES = {
    LayerKind.MODEL: "model",
    LayerKind.MODEL_PART: "modelpart",
    LayerKind.CODE: "code",
    LayerKind.DATASET: "dataset",
    LayerKind.DOCS: "docs",
    LayerKind.PROMPT: "code",
    LayerKind.MCP_SERVER: "mcpb",
}
_CNCF_TYPES = {"model": "weight", "modelpart": "weight.config", "docs": "doc", "code": "code", "dataset": "dataset"}
_KITOPS_NAMES = {cncf: kitops for kitops, cncf in _CNCF_TYPES.items()}
_TYPE = re.compile(r"application/vnd\.(kitops\.modelkit|cncf\.model)\.([a-z.]+)\.v1\.(tar|raw)(?:\+([a-z-]+))?")


@dataclass(frozen=True)
class LayerType:
    """What the media type of a layer says.

    :param base: ``model``, ``modelpart``, ``code``, ``dataset``, ``docs`` or ``mcpb``, in ModelPacks too.
    :param form: ``tar`` or ``raw``.
    :param compression: empty, ``gzip`` or ``zstd``.
    """

    base: str
    form: str
    compression: str

    @classmethod
    def parse(cls, media_type: str) -> LayerType | None:
        """The parts of a layer's media type; ``None`` for one that neither ModelKits nor ModelPacks have."""
        match = _TYPE.fullmatch(media_type)
        if match is None:
            return None
        family, base, form, compression = match.groups()
        known = base if family == "kitops.modelkit" else _KITOPS_NAMES.get(base)
        if known is None or known not in _BASE_TYPES.values():
            return None
        return cls(known, form, "gzip" if compression == "gzip-fastest" else compression or "")


def layer_type(
    kind: LayerKind, compression: str = "none", form: LayerFormat = "tar", manifest_format: ManifestFormat = "modelkit"
) -> str:
    """The media type of a layer; MCP servers are always raw and never compressed.

    :raises InvalidInput: ModelPacks have no such layer.
    """
    base = _BASE_TYPES[kind]
    if manifest_format == "modelpack":
        if base not in _CNCF_TYPES:
            raise InvalidInput(f"A ModelPack has no layers for {kind.value}.", hint="Pack a ModelKit.")
        base, prefix = _CNCF_TYPES[base], _CNCF
    else:
        prefix = _KITOPS
    if kind is LayerKind.MCP_SERVER:
        return f"{prefix}{base}.v1.raw"
    suffix = {"none": "", "gzip-fastest": "+gzip"}.get(compression, f"+{compression}")
    return f"{prefix}{base}.v1.{form}{suffix}"


def base_type(kind: LayerKind) -> str:
    """The word for ``kind`` in media types."""
    return _BASE_TYPES[kind]


@dataclass(frozen=True)
class Layer:
    """One layer.

    :param descriptor: of the blob.
    :param kind: section of the Kitfile that it belongs to.
    :param path: its path as the Kitfile writes it.
    :param name: its name in the Kitfile, or empty.
    :param diff_id: digest of the content before compression; empty in ModelKits of kit before 0.5.
    """

    descriptor: Descriptor
    kind: LayerKind
    path: str
    name: str
    diff_id: str


@dataclass(frozen=True)
class Manifest:
    """A parsed image manifest (OCI image specification 1.1, manifest.md)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    def typed_layers(self, name: str) -> list[tuple[Descriptor, str]]:
        """The layers that a Kitfile has sections for, each with its base type.

        :param name: what to call the manifest in messages.
        """
        found = []
        for layer in self.layers:
            kind = LayerType.parse(layer.media_type)
            if kind:
                found.append((layer, kind.base))
            else:
                log.warning("A layer of %s has the unknown media type %s; it is passed over.", name, layer.media_type)
        return found

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


def manifest_bytes(
    config: Descriptor,
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str],
    manifest_format: ManifestFormat = "modelkit",
) -> bytes:
    """The manifest. Equal arguments give equal bytes."""
    value: dict[str, Any] = {"schemaVersion": 2}
    if manifest_format != "modelkit-v1.7":
        value["mediaType"] = MANIFEST
        value["artifactType"] = MODELPACK_ARTIFACT_TYPE if manifest_format == "modelpack" else ARTIFACT_TYPE
    value["config"] = config.to_json()
    value["layers"] = [layer.to_json() for layer in layers]
    if manifest_format == "modelkit-v1.7":
        # Go's encoder writes an empty list that was never made as null.
        value["layers"] = value["layers"] or None
    if annotations:
        value["annotations"] = dict(sorted(annotations.items()))
    return _gojson.dumps(value)

"""Small OCI artifacts to store and move."""

from __future__ import annotations

import json
from collections.abc import Sequence

from airflow_provider_kitops.oci.descriptor import EMPTY, INDEX, MANIFEST, Descriptor
from airflow_provider_kitops.oci.target import Target

CONFIG = "application/vnd.example.config.v1+json"
LAYER = "application/vnd.example.layer.v1"


def manifest_bytes(config: Descriptor, layers: Sequence[Descriptor], **more: object) -> bytes:
    """A manifest, written with spaces that nobody would write again the same way."""
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
        **more,
    }
    return json.dumps(value, indent=3).encode()


def put_artifact(target: Target, *layers: bytes, tag: str = "", **more: object) -> Descriptor:
    """Push an artifact with these layers and tag it."""
    config = target.push(CONFIG, json.dumps({"layers": len(layers)}).encode())
    stored = [target.push(LAYER, layer) for layer in layers]
    manifest = target.push(MANIFEST, manifest_bytes(config, stored, **more))
    if tag:
        target.tag(manifest, tag)
    return manifest


def put_referrer(
    target: Target, subject: Descriptor, artifact_type: str = "application/vnd.example.note", note: str = "note"
) -> Descriptor:
    """Push a manifest that refers to ``subject``."""
    empty = target.push(Descriptor.of(EMPTY, b"{}"), b"{}")
    data = manifest_bytes(
        empty,
        [empty],
        artifactType=artifact_type,
        annotations={"note": note},
        subject={"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size},
    )
    return target.push(MANIFEST, data)


def put_index(target: Target, *manifests: Descriptor, tag: str = "") -> Descriptor:
    """Push an index of manifests and tag it."""
    value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [item.to_json() for item in manifests]}
    index = target.push(INDEX, json.dumps(value).encode())
    if tag:
        target.tag(index, tag)
    return index

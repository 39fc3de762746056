"""Contexts, repositories and layers for the tests of this package."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from airflow_provider_kitops.modelkit.kitfile import Kitfile, LayerIds
from airflow_provider_kitops.modelkit.manifest import CONFIG_TYPE, layer_type, manifest_bytes
from airflow_provider_kitops.oci.descriptor import MANIFEST, Descriptor, digest_of
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.target import Target

Write = Callable[[Mapping[str, str | bytes]], Path]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout", "demo/model")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files below a new context directory."""

    def write(files: Mapping[str, str | bytes]) -> Path:
        context = tmp_path / "context"
        for name, content in files.items():
            path = context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return context

    return write


def tar_of(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    """A tar stream with the given members, however odd; a pair is a plain file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, tuple):
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
            else:
                archive.addfile(member)
    return out.getvalue()


def push_kit(
    target: Target,
    kitfile: Kitfile,
    blobs: list[bytes],
    *,
    compression: str = "none",
    diff_ids: list[str] | None = None,
) -> Descriptor:
    """Put a ModelKit together from layers as given, however wrong they are."""
    descriptors, ids = [], []
    for index, ((kind, _), blob) in enumerate(zip(kitfile.entries(), blobs, strict=True)):
        descriptors.append(target.push(layer_type(kind, compression), blob))
        ids.append(LayerIds(digest_of(blob), diff_ids[index] if diff_ids else digest_of(blob)))
    config = target.push(CONFIG_TYPE, kitfile.to_config_json(ids))
    return target.push(MANIFEST, manifest_bytes(config, descriptors, {}))

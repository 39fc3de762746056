"""Images of one layer and a few files, made and pushed without a container engine."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import requests

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def push(
    registry: str, repository: str, tag: str, files: Mapping[str, Path], links: Sequence[str] = (), **config: object
) -> str:
    """Push an image; its digest. It is the same one for the same files.

    :param registry: ``host:port``; asked over plain HTTP, without credentials.
    :param files: programs, by their path in the image.
    :param links: paths in the image that are links to the first of the files.
    :param config: of the container, as in ``Entrypoint=["/pause"]``.
    """
    layer = _layer(files, links)
    settings = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    with requests.Session() as session:
        session.trust_env = False
        url = f"http://{registry}/v2/{repository}"
        blobs = [(_CONFIG, json.dumps(settings).encode()), (_LAYER, layer)]
        for _, blob in blobs:
            _push_blob(session, url, blob)
        described = [{"mediaType": kind, "digest": _digest(blob), "size": len(blob)} for kind, blob in blobs]
        content = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": described[0], "layers": described[1:]}
        manifest = json.dumps(content).encode()
        answer = session.put(f"{url}/manifests/{tag}", data=manifest, headers={"Content-Type": _MANIFEST}, timeout=60)
        answer.raise_for_status()
    return _digest(manifest)


def _push_blob(session: requests.Session, url: str, blob: bytes) -> None:
    digest = _digest(blob)
    if session.head(f"{url}/blobs/{digest}", timeout=60).ok:
        return
    upload = session.post(f"{url}/blobs/uploads/", timeout=60)
    upload.raise_for_status()
    place = requests.compat.urljoin(upload.url, upload.headers["Location"])
    separator = "&" if "?" in place else "?"
    headers = {"Content-Type": "application/octet-stream"}
    session.put(f"{place}{separator}digest={digest}", data=blob, headers=headers, timeout=60).raise_for_status()


def _layer(files: Mapping[str, Path], links: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        # A program may want to write here, as any user.
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(temporary)
        for name, source in files.items():
            member = tarfile.TarInfo(name.lstrip("/"))
            member.mode, member.size = 0o755, source.stat().st_size
            with source.open("rb") as file:
                archive.addfile(member, file)
        for name in links:
            member = tarfile.TarInfo(name.lstrip("/"))
            member.type, member.linkname = tarfile.SYMTYPE, next(iter(files))
            archive.addfile(member)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def has(registry: str, repository: str, digest: str) -> bool:
    """Whether a registry has a manifest."""
    with requests.Session() as session:
        session.trust_env = False
        headers = {"Accept": f"{_MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"}
        return session.head(f"http://{registry}/v2/{repository}/manifests/{digest}", headers=headers, timeout=60).ok

"""A client that does not wait long, and whether what a registry or a layout holds is whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from airflow_provider_kitops.oci._http import HttpSettings, RegistryClient
from airflow_provider_kitops.oci._retry import RetryPolicy
from airflow_provider_kitops.oci.credentials import Credentials
from airflow_provider_kitops.oci.descriptor import MANIFEST_TYPES
from airflow_provider_kitops.oci.repository import Repository
from tests.registry import Registry

NOBODY = Credentials()
QUICK = RetryPolicy(attempts=4, base=0.001, longest=0.02)


@contextlib.contextmanager
def quick_repository(
    host: str, name: str, credentials: Credentials = NOBODY, **settings: object
) -> Iterator[Repository]:
    """A repository at ``host`` over plain HTTP, with short pauses."""
    values: dict[str, object] = {"plain_http": True, "retry": QUICK, **settings}
    client = RegistryClient(host, HttpSettings(**values), lambda: credentials)  # type: ignore[arg-type]
    try:
        yield Repository(host, name, client)
    finally:
        client.close()


def assert_registry_whole(registry: Registry, repository: str) -> dict[str, str]:
    """Every tag names a manifest, whose blobs are there and are what they are called; the tags with their digests."""
    session = requests.Session()
    session.auth = (registry.username, registry.password) if registry.username else None
    base = f"{registry.url}/v2/{repository}"
    listed = session.get(f"{base}/tags/list", timeout=30)
    found = {}
    for tag in (listed.json()["tags"] or []) if listed.ok else []:
        # docker-registry lists a tag while it is still writing what it names, whether its client lives or not.
        for _ in range(20):
            answer = session.get(f"{base}/manifests/{tag}", headers={"Accept": ", ".join(MANIFEST_TYPES)}, timeout=30)
            if answer.ok:
                break
            time.sleep(0.1)
        assert answer.ok, f"the tag {tag} of {repository} names nothing"
        found[tag] = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        manifest = answer.json()
        for part in (manifest["config"], *manifest["layers"]):
            blob = session.get(f"{base}/blobs/{part['digest']}", timeout=30)
            assert blob.ok, f"{part['digest']} of {repository}:{tag} is missing"
            assert f"sha256:{hashlib.sha256(blob.content).hexdigest()}" == part["digest"]
            assert len(blob.content) == part["size"]
    return found


def assert_layout_whole(path: Path) -> dict[str, str]:
    """Every file is what it is called, and every entry of the index is whole; the tags with their digests."""
    for blob in path.glob("blobs/*/*"):
        digest = hashlib.new(blob.parent.name, blob.read_bytes()).hexdigest()
        assert digest == blob.name, f"{blob} holds {digest}"
    found = {}
    index = path / "index.json"
    for entry in json.loads(index.read_bytes())["manifests"] if index.exists() else []:
        manifest = json.loads(_blob(path, entry).read_bytes())
        for part in (manifest["config"], *manifest["layers"]):
            assert _blob(path, part).stat().st_size == part["size"]
        tag = entry.get("annotations", {}).get("org.opencontainers.image.ref.name")
        if tag:
            assert tag not in found
            found[tag] = entry["digest"]
    return found


def _blob(path: Path, descriptor: dict[str, str]) -> Path:
    return path / "blobs" / descriptor["digest"].replace(":", "/")

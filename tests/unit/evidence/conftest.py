"""A repository in a local layout with one manifest in it, and keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from airflow_provider_kitops.modelkit.manifest import CONFIG_TYPE
from airflow_provider_kitops.oci.descriptor import MANIFEST, Descriptor
from airflow_provider_kitops.oci.layout import Layout


@dataclass(frozen=True)
class Keys:
    """Files of a key pair."""

    private: Path
    public: Path


def make_keys(directory: Path, kind: str, *, password: str = "") -> Keys:
    key = {
        "ed25519": Ed25519PrivateKey.generate,
        "ecdsa": lambda: generate_private_key(SECP256R1()),
        "rsa": lambda: generate_rsa_key(65537, 2048),
    }[kind]()
    keys = Keys(directory / f"{kind}.pem", directory / f"{kind}.pub")
    directory.mkdir(parents=True, exist_ok=True)
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    keys.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    keys.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return keys


def put_manifest(target, text: str) -> Descriptor:
    """A ModelKit with one layer, of a type that is passed over, that holds ``text``."""
    config = target.push(CONFIG_TYPE, b'{"package": {"name": "demo"}}')
    layer = target.push("text/plain", text.encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "text/plain",
        "config": config.to_json(),
        "layers": [layer.to_json()],
    }
    return target.push(MANIFEST, json.dumps(manifest).encode())


@pytest.fixture
def target(tmp_path) -> Layout:
    return Layout(tmp_path / "layout", "demo/model")


@pytest.fixture
def model(target) -> Descriptor:
    return put_manifest(target, "a model")


@pytest.fixture
def keys(tmp_path) -> Keys:
    return make_keys(tmp_path / "keys", "ed25519")

"""Removing a tag and leaving its manifest (distribution specification 1.1, "Deleting tags", which is optional).

Where a registry only deletes by digest (docker-registry 2), the tag is first moved to a manifest made for the
purpose, and that is deleted: the registry removes the tags of what it deletes.
"""

from __future__ import annotations

import contextlib
import json
import secrets

from airflow_provider_kitops.oci._endpoint import Endpoint
from airflow_provider_kitops.oci._manifests import Manifests
from airflow_provider_kitops.oci._uploads import Uploads
from airflow_provider_kitops.oci.descriptor import EMPTY, MANIFEST, Descriptor, digest_of
from airflow_provider_kitops.oci.errors import KitopsError

_DONE = (200, 202, 204)
_UNSUPPORTED = (400, 404, 405)


def untag(at: Endpoint, manifests: Manifests, uploads: Uploads, tag: str) -> None:
    """Remove a tag.

    :raises NotFound: there is none.
    :raises Forbidden: the registry deletes nothing; the tag is as it was.
    """
    before, data = manifests.read(tag)
    doing = f"untag {tag} in {at.repository}"
    with at.client.request(
        "DELETE", at.path("manifests", tag), doing=doing, scope=at.delete, accept=(*_DONE, *_UNSUPPORTED)
    ) as response:
        if response.status_code in _DONE:
            return
    config = Descriptor.of(EMPTY, b"{}")
    uploads.push(config, b"{}")
    # Tried without the tag first: where nothing may be deleted, the tag has not been touched.
    trial = _placeholder(config)
    manifests.put(MANIFEST, trial, digest_of(trial))
    manifests.delete(digest_of(trial))
    placeholder = _placeholder(config)
    manifests.put(MANIFEST, placeholder, tag)
    try:
        manifests.delete(digest_of(placeholder))
    except BaseException:
        with contextlib.suppress(KitopsError):
            manifests.put(before.media_type, data, tag)
        raise


def _placeholder(config: Descriptor) -> bytes:
    """A manifest that nobody else has, so that deleting it removes no other tag."""
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": EMPTY,
        "config": config.to_json(),
        "layers": [config.to_json()],
        "annotations": {"org.opencontainers.image.description": "being untagged", "nonce": secrets.token_hex(16)},
    }
    return json.dumps(value).encode()

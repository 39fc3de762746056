"""Manifests and tags (distribution specification 1.1, "Pulling manifests", "Pushing Manifests", "Listing Tags")."""

from __future__ import annotations

import re
from typing import Any

import requests

from airflow_provider_kitops.oci._endpoint import Endpoint
from airflow_provider_kitops.oci._http import announced_length
from airflow_provider_kitops.oci._paging import pages, texts
from airflow_provider_kitops.oci.content import Verifier, too_large
from airflow_provider_kitops.oci.descriptor import (
    MANIFEST_TYPES,
    MAX_MANIFEST_SIZE,
    Descriptor,
    digest_of,
    is_digest,
)
from airflow_provider_kitops.oci.errors import DigestMismatch, InvalidInput, NotFound

_ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}
_PAGE = "1000"
# Where registries without the referrers API keep the lists of referrers: no tag that a person made.
_REFERRERS_TAG = re.compile(r"sha256-[0-9a-f]{64}|sha512-[0-9a-f]{64}")


class Manifests:
    """Manifests of one repository."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._at = endpoint

    def resolve(self, reference: str) -> Descriptor:
        """The manifest that a tag or digest names.

        :raises NotFound: it names none.
        """
        with self._at.client.request("HEAD", self._path(reference), **self._reading(reference)) as response:
            digest = response.headers.get("Docker-Content-Digest", "")
            length = announced_length(response)
            media_type = _media_type(response)
        if not is_digest(digest) or length is None or media_type not in MANIFEST_TYPES:
            return self.read(reference)[0]
        if is_digest(reference) and digest != reference:
            raise DigestMismatch(f"Asked {self._at.name} for {reference}, and it answered with {digest}.")
        return Descriptor(media_type, digest, length)

    def read(self, reference: str) -> tuple[Descriptor, bytes]:
        """The manifest that a tag or digest names, with its exact bytes.

        :raises NotFound: it names none.
        :raises LimitExceeded: it is larger than a manifest may be.
        :raises DigestMismatch: it does not have the digest asked for, or the one that the registry says.
        """
        response, data = self._at.client.read(
            "GET", self._path(reference), limit=MAX_MANIFEST_SIZE, **self._reading(reference)
        )
        media_type = _media_type(response)
        if media_type not in MANIFEST_TYPES:
            raise InvalidInput(
                f"{reference} in {self._at.name} is of type {media_type[:100] or '(none)'}, which is no OCI manifest.",
                hint="Name a ModelKit or another OCI artifact.",
            )
        said = response.headers.get("Docker-Content-Digest", "")
        digest = reference if is_digest(reference) else said if is_digest(said) else digest_of(data)
        descriptor = Descriptor(media_type, digest, len(data))
        _verify(descriptor, data, self._at.name)
        return descriptor, data

    def fetch(self, descriptor: Descriptor) -> bytes:
        """The exact bytes of a manifest.

        :raises NotFound: it is not there.
        """
        if descriptor.size > MAX_MANIFEST_SIZE:
            raise too_large(f"The manifest {descriptor.digest} in {self._at.name}", MAX_MANIFEST_SIZE)
        _, data = self.read(descriptor.digest)
        _verify(descriptor, data, self._at.name)
        return data

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether the manifest is there."""
        try:
            return self.resolve(descriptor.digest).digest == descriptor.digest
        except NotFound:
            return False

    def put(self, media_type: str, data: bytes, reference: str) -> requests.Response:
        """Store a manifest under a tag or its digest; the answer has been read.

        :raises DigestMismatch: the registry has stored something else.
        """
        return self._at.client.retry.call(lambda: self.put_once(media_type, data, reference))

    def put_once(self, media_type: str, data: bytes, reference: str) -> requests.Response:
        """As ``put``, tried once."""
        response, _ = self._at.client.read_once(
            "PUT",
            self._path(reference),
            doing=f"push the manifest {reference} to {self._at.repository}",
            scope=self._at.push,
            headers={"Content-Type": media_type},
            body=data,
            accept=(201,),
        )
        said = response.headers.get("Docker-Content-Digest", "")
        # Another algorithm than the one that was asked for proves nothing.
        if said.startswith("sha256:") and said != digest_of(data):
            raise DigestMismatch(f"{self._at.name} says that it stored {said} when it got {digest_of(data)}.")
        return response

    def delete(self, reference: str) -> None:
        """Delete a manifest by digest, or a tag.

        :raises NotFound: there is none.
        :raises Forbidden: the registry does not allow it.
        """
        self._at.client.request(
            "DELETE",
            self._path(reference),
            doing=f"delete {reference} from {self._at.repository}",
            scope=self._at.delete,
            accept=(200, 202, 204),
        ).close()

    def tags(self) -> list[str]:
        """All tags, sorted, without those that only hold lists of referrers."""
        doing = f"list the tags of {self._at.repository}"
        found: set[str] = set()
        try:
            for _, page in pages(
                self._at.client, self._at.path("tags", "list"), doing=doing, scope=self._at.pull, params={"n": _PAGE}
            ):
                found.update(texts(page, "tags", doing))
        except NotFound:
            return []
        return sorted(tag for tag in found if not _REFERRERS_TAG.fullmatch(tag))

    def _path(self, reference: str) -> str:
        return self._at.path("manifests", reference)

    def _reading(self, reference: str) -> dict[str, Any]:
        doing = f"find {reference} in {self._at.repository}"
        return {"doing": doing, "scope": self._at.pull, "headers": _ACCEPT}


def _media_type(response: requests.Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip()


def _verify(descriptor: Descriptor, data: bytes, where: str) -> None:
    verifier = Verifier(descriptor, where)
    verifier.update(data)
    verifier.finish()

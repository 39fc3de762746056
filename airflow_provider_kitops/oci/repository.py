"""A repository of a registry (OCI distribution specification 1.1): a ``Target``."""

from __future__ import annotations

import io

import requests

from airflow_provider_kitops.oci._downloads import Downloads
from airflow_provider_kitops.oci._endpoint import Endpoint
from airflow_provider_kitops.oci._http import RegistryClient
from airflow_provider_kitops.oci._manifests import Manifests
from airflow_provider_kitops.oci._referrers import Referrers
from airflow_provider_kitops.oci._untagging import untag
from airflow_provider_kitops.oci._uploads import Uploads
from airflow_provider_kitops.oci.content import Readable, Verifier, VerifyingReader, check_descriptor, read_small
from airflow_provider_kitops.oci.descriptor import MANIFEST_TYPES, Descriptor, digest_of
from airflow_provider_kitops.oci.errors import NotFound, RegistryUnavailable
from airflow_provider_kitops.oci.manifest import Links
from airflow_provider_kitops.oci.reference import check_tag
from airflow_provider_kitops.oci.target import Reader, Source, Target


class Repository:
    """One repository of a registry.

    :param registry: ``host[:port]``, as it stands in references.
    :param repository: slash-separated name.
    :param client: sends the requests; shared by the repositories of a registry.
    """

    def __init__(self, registry: str, repository: str, client: RegistryClient) -> None:
        self._registry = registry
        self._repository = repository
        self._client = client
        self._endpoint = endpoint = Endpoint(client, repository)
        self._manifests = Manifests(endpoint)
        self._referrers = Referrers(endpoint, self._manifests)
        self._uploads = Uploads(endpoint)
        self._downloads = Downloads(endpoint)

    def __repr__(self) -> str:
        return f"Repository({self.name!r})"

    @property
    def name(self) -> str:
        """``registry/repository``."""
        return f"{self._registry}/{self._repository}"

    def resolve(self, reference: str) -> Descriptor:
        """The manifest that a tag or digest names.

        :raises NotFound: it names none.
        """
        return self._manifests.resolve(reference)

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether the content is in the repository."""
        return (self._manifests if descriptor.is_manifest else self._downloads).exists(descriptor)

    def fetch(self, descriptor: Descriptor) -> Reader:
        """A verifying stream of the content.

        :raises NotFound: it is not in the repository.
        """
        if descriptor.is_manifest:
            return VerifyingReader(io.BytesIO(self._manifests.fetch(descriptor)), descriptor, self.name)
        return VerifyingReader(self._downloads.open(descriptor), descriptor, self.name)

    def fetch_from(self, descriptor: Descriptor, offset: int) -> Readable:
        """The bytes of a blob from ``offset`` on, which nobody has verified.

        :raises NotFound: it is not in the repository.
        """
        return self._downloads.open(descriptor, offset)

    def push(self, content: Descriptor | str, source: Source) -> Descriptor:
        """Store ``source`` and return its descriptor; see ``Target.push``.

        :raises DigestMismatch: the bytes are not what the descriptor names.
        :raises NotFound: a manifest names content that is not in the repository.
        """
        check_descriptor(content)
        media_type = content if isinstance(content, str) else content.media_type
        if media_type in MANIFEST_TYPES:
            return self._push_manifest(content, source)
        if isinstance(content, str) and isinstance(source, bytes):
            content = Descriptor.of(content, source)
        if isinstance(content, Descriptor) and self._downloads.exists(content):
            return content
        return self._uploads.push(content, source)

    def tag(self, descriptor: Descriptor, tag: str) -> None:
        """Make ``tag`` name this manifest, byte for byte as it is stored.

        :raises NotFound: the manifest is not in the repository.
        :raises InvalidReference: ``tag`` is malformed.
        """
        check_tag(tag)
        stored, data = self._manifests.read(descriptor.digest)
        self._manifests.put(stored.media_type, data, tag)

    def untag(self, tag: str) -> None:
        """Remove a tag and leave the manifest.

        Where a registry deletes by digest only, the tag names an empty manifest for the blink of an eye.

        :raises NotFound: there is no such tag.
        :raises Forbidden: the registry is set up not to delete.
        """
        check_tag(tag)
        untag(self._endpoint, self._manifests, self._uploads, tag)

    def tags(self) -> list[str]:
        """All tags, sorted; empty for a repository that does not exist.

        Those under which a registry without the referrers API keeps lists of referrers are left out.
        """
        return self._manifests.tags()

    def referrers(self, descriptor: Descriptor, artifact_type: str | None = None) -> list[Descriptor]:
        """Manifests whose ``subject`` is this one, each with its artifact type and annotations."""
        return self._referrers.listed(descriptor, artifact_type)

    def delete(self, descriptor: Descriptor) -> None:
        """Delete a manifest with all its tags, or a blob.

        :raises NotFound: it is not in the repository.
        :raises Forbidden: the registry is set up not to delete.
        """
        if not descriptor.is_manifest:
            self._downloads.delete(descriptor)
            return
        stored, data = self._manifests.read(descriptor.digest)
        self._manifests.delete(descriptor.digest)
        subject = Links.parse(stored.media_type, data).subject
        if subject is not None:
            self._referrers.removed(stored, subject)

    def mount(self, descriptor: Descriptor, source: Target) -> bool:
        """Take a blob from another repository of the same registry, without moving a byte.

        :return: False if that cannot be done; nothing has changed then.
        """
        if not isinstance(source, Repository) or descriptor.is_manifest:
            return False
        if source._client.origin != self._client.origin:
            return False
        return self._uploads.mount(descriptor, source._repository)

    def interrupt(self) -> None:
        """End all requests to this registry that other threads are in the middle of, for whatever repository."""
        self._client.interrupt()

    def resume(self) -> None:
        """Let the registry be asked again."""
        self._client.resume()

    def _push_manifest(self, content: Descriptor | str, source: Source) -> Descriptor:
        data = read_small(source, f"A manifest for {self.name}")
        if isinstance(content, Descriptor):
            verifier = Verifier(content, self.name)
            verifier.update(data)
            verifier.finish()
        else:
            content = Descriptor(content, digest_of(data), len(data))
        links = Links.parse(content.media_type, data)
        manifest = content
        answer = self._client.retry.call(lambda: self._put(manifest, data, links))
        if links.subject is not None:
            listed = Descriptor(
                content.media_type, content.digest, content.size, links.annotations or {}, links.artifact_type
            )
            self._referrers.added(listed, links.subject, answer)
        return content

    def _put(self, manifest: Descriptor, data: bytes, links: Links) -> requests.Response:
        try:
            return self._manifests.put_once(manifest.media_type, data, manifest.digest)
        except NotFound as error:
            if not all(self.exists(part) for part in (*links.blobs, *links.manifests)):
                raise
            # docker-registry rewrites its note of a blob in place whenever somebody pushes the blob again, and finds
            # the blob missing when it reads the note at that moment.
            hint = "Another client may be pushing the same content: try again."
            raise RegistryUnavailable(error.message, hint=hint) from error

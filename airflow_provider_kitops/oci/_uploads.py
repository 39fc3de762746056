"""Sending blobs (distribution specification 1.1, "Pushing blobs", "Mounting a blob from another repository").

Bytes are streamed once, as one PATCH whose closing PUT names the digest, which may have been found on the way; what is
small and known goes with the PUT. A registry behind a proxy that refuses large requests gets them in chunks. What
breaks is sent again from the source's beginning: docker-registry 2.8, and what is built on it, drops an upload whose
PATCH broke ("upload resumed at wrong offset"), so there is nothing to go on from.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import quote

import requests

from airflow_provider_kitops.oci._endpoint import Endpoint
from airflow_provider_kitops.oci._http import TIMEOUT
from airflow_provider_kitops.oci._origin import upload_location
from airflow_provider_kitops.oci.content import Hasher, Verifier, chunks
from airflow_provider_kitops.oci.descriptor import OCTET_STREAM, Descriptor
from airflow_provider_kitops.oci.errors import KitopsError, LimitExceeded, RegistryUnavailable
from airflow_provider_kitops.oci.target import Source

# A registry may move or hash the whole blob before it answers to the last request.
_COMMIT_TIMEOUT = (TIMEOUT[0], 900.0)
_BLOCK = 256 * 1024
# Content that is known and no larger saves a request.
_AT_ONCE = 4 * 1024 * 1024
# What a registry gets at a time that has refused a large request.
_CHUNK = 16 * 1024 * 1024

logger = logging.getLogger(__name__)


class Uploads:
    """Blob uploads to one repository."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._at = endpoint
        # The shortest chunk that the registry takes, but for the last.
        self._least = 0

    def push(self, content: Descriptor | str, source: Source) -> Descriptor:
        """Send ``source`` and return its descriptor.

        :param content: descriptor that the bytes must match, or their media type.
        :raises DigestMismatch: they do not match; the registry keeps nothing.
        """
        return self._at.client.retry.call(lambda: self._push(content, source))

    def mount(self, descriptor: Descriptor, repository: str) -> bool:
        """Ask the registry to take a blob from another of its repositories.

        :return: False if it does not.
        """
        other = Endpoint(self._at.client, repository)
        response = self._at.client.request(
            "POST",
            self._at.path("blobs", "uploads", ""),
            doing=f"mount {descriptor.digest} from {other.repository} in {self._at.repository}",
            scope=f"{self._at.push} {other.pull}",
            params={"mount": descriptor.digest, "from": other.remote},
            headers={"Content-Length": "0"},
            accept=(201, 202, 400, 401, 403, 404, 405),
        )
        with response:
            if response.status_code == 202:
                self._cancel(self._location(response))
            return response.status_code == 201

    def _push(self, content: Descriptor | str, source: Source) -> Descriptor:
        doing = f"upload {content.digest if isinstance(content, Descriptor) else 'a blob'} to {self._at.repository}"
        body = _Body(content, source, self._at.name)
        small: bytes | None = None
        if isinstance(content, Descriptor) and content.size <= _AT_ONCE:
            # Before a session is begun: nothing has to be ended if the source fails.
            small = b"".join(body)
            body.check()
        location = self._begin(doing)
        try:
            if small is None:
                location = self._send(location, body, doing)
                body.check()
            found = body.descriptor
            self._finish(location, found.digest, small or b"", doing)
        except LimitExceeded:
            self._cancel(location)
            body.check()
            if self._at.client.upload_chunk or small is not None:
                raise
            logger.warning("%s takes no large requests; it gets blobs in pieces from now on.", self._at.client.registry)
            self._at.client.upload_chunk = _CHUNK
            return self._push(content, source)
        except BaseException:
            # Also before another try: what was sent would stay in the registry, once for each.
            self._cancel(location)
            # What the source raises passes through the HTTP library, which may take it for its own trouble.
            body.check()
            raise
        return found

    def _begin(self, doing: str) -> str:
        with self._at.client.send(
            "POST",
            self._at.path("blobs", "uploads", ""),
            doing=doing,
            scope=self._at.push,
            headers={"Content-Length": "0"},
            accept=(202,),
        ) as response:
            least = response.headers.get("OCI-Chunk-Min-Length", "")
            self._least = int(least) if re.fullmatch("[0-9]{1,9}", least) else 0
            return self._location(response)

    def _send(self, location: str, body: _Body, doing: str) -> str:
        """Send the bytes, in one request or in several; where the upload is then."""
        size = self._at.client.upload_chunk
        if not size:
            return self._patch(location, body, {}, doing)
        offset = 0
        for chunk in _joined(body, max(size, self._least)):
            content_range = f"{offset}-{offset + len(chunk) - 1}"
            location = self._patch(location, chunk, {"Content-Range": content_range}, doing)
            offset += len(chunk)
        return location

    def _patch(self, location: str, body: _Body | bytes, headers: Mapping[str, str], doing: str) -> str:
        with self._at.client.send(
            "PATCH",
            location,
            doing=doing,
            scope=self._at.push,
            headers={"Content-Type": OCTET_STREAM, **headers},
            body=body,
            accept=(202,),
            timeout=_COMMIT_TIMEOUT,
        ) as response:
            return self._location(response)

    def _finish(self, location: str, digest: str, body: bytes, doing: str) -> None:
        joint = "&" if "?" in location else "?"
        self._at.client.send(
            "PUT",
            f"{location}{joint}digest={quote(digest, safe='')}",
            doing=doing,
            scope=self._at.push,
            headers={"Content-Type": OCTET_STREAM},
            body=body,
            accept=(201, 204),
            timeout=_COMMIT_TIMEOUT,
        ).close()

    def _cancel(self, location: str) -> None:
        # Only tidying up: a registry drops sessions that nobody ends. Somebody may be waiting for us to stop, so the
        # answer is not waited for long.
        with contextlib.suppress(KitopsError):
            self._at.client.send(
                "DELETE",
                location,
                doing="end an upload",
                scope=self._at.push,
                accept=(200, 202, 204, 404),
                timeout=(2.0, 2.0),
                after_interrupt=True,
            ).close()

    def _location(self, response: requests.Response) -> str:
        location = response.headers.get("Location")
        if not location:
            raise RegistryUnavailable(f"The registry {self._at.client.registry} names no place for an upload.")
        return upload_location(response.url, location)


class _Body:
    """The bytes of a source as a request's body, in blocks of a fair size, hashed on the way.

    A request comes to its regular end even if the source fails, so that the answer tells where the upload can be ended:
    one that broke cannot be ended at docker-registry, which keeps its bytes for a week. ``check`` tells.

    :param content: descriptor that the bytes must match, or their media type.
    """

    def __init__(self, content: Descriptor | str, source: Source, where: str) -> None:
        self.error: BaseException | None = None
        self._content = content
        self._source = source
        self._verifier = Verifier(content, where) if isinstance(content, Descriptor) else None
        self._hash = Hasher("sha256")
        self._size = 0

    @property
    def descriptor(self) -> Descriptor:
        """What was sent."""
        if isinstance(self._content, Descriptor):
            return self._content
        return Descriptor(self._content, f"sha256:{self._hash.hexdigest()}", self._size)

    def check(self) -> None:
        """Raise what the source has raised, or that it is not what its descriptor says."""
        if self.error is not None:
            raise self.error

    def __iter__(self) -> Iterator[bytes]:
        update: Callable[[bytes], None] = self._verifier.update if self._verifier else self._hash.update
        try:
            for block in _blocks(chunks(self._source)):
                update(block)
                self._size += len(block)
                yield block
            if self._verifier:
                self._verifier.finish()
        except GeneratorExit:  # nobody takes the rest, as the connection broke: no trouble of the source's
            raise
        except Exception as error:  # noqa: BLE001 - raised by ``check``
            self.error = error
        except BaseException as error:
            self.error = error
            raise


def _joined(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of ``size``, but for the last."""
    waiting = bytearray()
    for part in parts:
        waiting += part
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)


def _blocks(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of about ``_BLOCK``.

    Small ones cost a system call each, and each has to be taken by the other side within the time to connect.
    """
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        if len(part) >= 2 * _BLOCK and not waiting:
            yield from (part[at : at + _BLOCK] for at in range(0, len(part), _BLOCK))
            continue
        waiting.append(part)
        size += len(part)
        if size >= _BLOCK:
            yield part if len(waiting) == 1 else b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)

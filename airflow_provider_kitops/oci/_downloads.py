"""Getting blobs (distribution specification 1.1, "Pulling blobs"): what breaks goes on where it broke."""

from __future__ import annotations

import re
import time
from http.client import HTTPException
from typing import NoReturn

import requests
import urllib3

from airflow_provider_kitops.oci._endpoint import Endpoint
from airflow_provider_kitops.oci._http import announced_length
from airflow_provider_kitops.oci.content import CHUNK
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import DigestMismatch, KitopsError, RegistryUnavailable

#: Seconds after which what has arrived is handed on, so that a slow download shows progress and can be ended.
_MOMENT = 0.25
# A connection that broke after fewer bytes than these has moved nothing: else a server that drips, or breaks after
# every few bytes, would keep us for ever.
_PROGRESS = 64 * 1024


class Downloads:
    """Blobs of one repository."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._at = endpoint

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there."""
        with self._at.client.request(
            "HEAD",
            self._at.path("blobs", descriptor.digest),
            doing=f"look for {descriptor.digest} in {self._at.repository}",
            scope=self._at.pull,
            accept=(200, 404),
        ) as response:
            return response.status_code == 200

    def delete(self, descriptor: Descriptor) -> None:
        """Delete a blob.

        :raises NotFound: it is not there.
        :raises Forbidden: the registry does not allow it.
        """
        self._at.client.request(
            "DELETE",
            self._at.path("blobs", descriptor.digest),
            doing=f"delete {descriptor.digest} from {self._at.repository}",
            scope=self._at.delete,
            accept=(200, 202, 204),
        ).close()

    def open(self, descriptor: Descriptor, offset: int = 0) -> ResumingReader:
        """The bytes of a blob from ``offset`` on, not yet verified.

        :raises NotFound: it is not there.
        """
        return ResumingReader(self._at, descriptor, offset)


class ResumingReader:
    """The bytes of one blob over as many connections as it takes.

    :param endpoint: the repository.
    :param descriptor: the blob.
    :param offset: where to begin.
    :raises NotFound: it is not there.
    """

    def __init__(self, endpoint: Endpoint, descriptor: Descriptor, offset: int = 0) -> None:
        self._at = endpoint
        self._descriptor = descriptor
        self._doing = f"download {descriptor.digest} from {endpoint.repository}"
        self._offset = offset
        self._response: requests.Response | None = None
        # Bytes at the beginning of the answer that are here already.
        self._skip = 0
        self._ranges = True
        # How often in a row it broke without progress, and where it broke last.
        self._breaks = 0
        self._broke_at = offset
        # Nothing is left of what somebody had to its last byte; there is no range for that.
        if not offset or offset < descriptor.size:
            endpoint.client.retry.call(self._open)

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, all that are left if negative; ``b""`` at the end.

        :raises RegistryUnavailable: the connection broke and could not be taken up again.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        if not size:
            return b""
        # Each piece has its own attempts: a bad line that still moves bytes is not given up.
        data = self._at.client.retry.call(lambda: self._read(size), unless=self._stuck)
        self._offset += len(data)
        return data

    def close(self) -> None:
        """Give up the connection."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _read(self, size: int) -> bytes:
        if self._response is None:
            if self._offset >= self._descriptor.size:
                return b""
            self._open()
        while self._skip:
            self._skip -= len(self._take(min(self._skip, CHUNK)))
        return self._take(size)

    def _take(self, size: int) -> bytes:
        """What arrives within a moment: large pieces from a fast registry, whatever there is from a slow one.

        :raises RegistryUnavailable: the connection broke; what had come before is not lost unless it was to be skipped.
        """
        assert self._response is not None
        pieces = []
        until = time.monotonic() + _MOMENT
        broken: KitopsError | None = None
        try:
            while size and (data := self._response.raw.read1(size, decode_content=False)):
                pieces.append(data)
                size -= len(data)
                if time.monotonic() > until:
                    break
        except (urllib3.exceptions.HTTPError, requests.RequestException, HTTPException, OSError) as error:
            broken = self._at.client.broken(error, self._doing)
        found = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not found and broken is None and (self._skip or self._offset < self._descriptor.size):
            broken = RegistryUnavailable(f"Could not {self._doing}: it ended after {self._offset} bytes.")
        if broken is None:
            return found
        self.close()
        self._count_break(self._offset if self._skip else self._offset + len(found))
        if self._skip or not found or self._stuck():
            raise broken
        return found

    def _without_ranges(self, why: str) -> NoReturn:
        """Begin anew, and skip what is here already."""
        self.close()
        self._ranges = False
        raise RegistryUnavailable(f"Could not {self._doing}: {why}.")

    def _count_break(self, place: int) -> None:
        self._breaks = 1 if place - self._broke_at >= _PROGRESS else self._breaks + 1
        self._broke_at = place

    def _stuck(self) -> bool:
        return self._breaks >= self._at.client.settings.retry.attempts

    def _open(self) -> None:
        offset = self._offset
        response = self._at.client.send(
            "GET",
            self._at.path("blobs", self._descriptor.digest),
            doing=self._doing,
            scope=self._at.pull,
            # With its end: go-containerregistry's registry takes no open range.
            headers={"Range": f"bytes={offset}-{self._descriptor.size - 1}"} if offset and self._ranges else None,
            accept=(200, 206, 416) if offset and self._ranges else (200,),
        )
        self._response = response
        self._skip = 0
        if response.status_code == 416:
            self._without_ranges("the registry does not go on where the download broke")
        if response.status_code == 206:
            first = re.match(r"bytes ([0-9]{1,18})-", response.headers.get("Content-Range", ""))
            if first is None or int(first[1]) != offset:
                self._without_ranges("the registry sent another range than asked for")
            return
        length = announced_length(response)
        if length is not None and length != self._descriptor.size:
            self.close()
            raise DigestMismatch(
                f"Could not {self._doing}: it has {length} bytes there, not {self._descriptor.size}.",
                hint="The content in the registry is damaged, or the manifest that names it is wrong.",
            )
        self._skip = offset  # a registry without ranges begins anew

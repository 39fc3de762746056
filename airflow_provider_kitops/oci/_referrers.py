"""Manifests that refer to another (distribution specification 1.1, "Listing Referrers").

Where a registry has no referrers API, a tag made from the subject's digest names an index that lists them, and it
is the client's duty to keep it ("Referrers Tag Schema"). No registry changes a tag only if it still is what it was,
so after a change the index is read again, and the change made again if another client's came in between.
"""

from __future__ import annotations

import json
import random
import threading
import time
from dataclasses import replace
from typing import Any

import requests

from airflow_provider_kitops.oci._endpoint import Endpoint
from airflow_provider_kitops.oci._manifests import Manifests
from airflow_provider_kitops.oci._paging import no_object, pages, parse_object
from airflow_provider_kitops.oci.descriptor import EMPTY, INDEX, MAX_MANIFEST_SIZE, Descriptor
from airflow_provider_kitops.oci.errors import Conflict, InvalidInput, NotFound, VerificationFailed
from airflow_provider_kitops.oci.manifest import Links

# What registries answer where they have no such API: not found, not understood, or a redirect to a page for people.
_NO_API = (301, 302, 303, 307, 308, 400, 404, 405, 406, 415, 501)
_ROUNDS = 8
# Seconds to let other clients finish what they began before ours could be seen by them.
_SETTLE = 0.1


class Referrers:
    """Referrers in one repository."""

    def __init__(self, endpoint: Endpoint, manifests: Manifests) -> None:
        self._at = endpoint
        self._manifests = manifests
        self._api: bool | None = None
        self._lock = threading.Lock()

    def listed(self, subject: Descriptor, artifact_type: str | None) -> list[Descriptor]:
        """Manifests whose subject this is.

        :param artifact_type: only those of this type.
        """
        found = self._by_api(subject, artifact_type) if self._api is not False else None
        if found is None:
            found = self._by_tag(subject)[1]
        # A registry may leave the filtering to us, with or without saying so.
        typed = [self._typed(item) for item in found]
        return [item for item in typed if artifact_type is None or item.artifact_type == artifact_type]

    def _typed(self, listed: Descriptor) -> Descriptor:
        """A referrer with its type, which some registries leave out, or take from an empty config (1.1's drafts)."""
        if listed.artifact_type not in (None, EMPTY) or not listed.is_manifest:
            return listed
        found, data = self._manifests.read(listed.digest)
        links = Links.parse(found.media_type, data)
        return replace(listed, artifact_type=links.artifact_type)

    def added(self, referrer: Descriptor, subject: Descriptor, answer: requests.Response) -> None:
        """Make a manifest that has just been pushed be listed.

        :param referrer: with its artifact type and annotations.
        :param answer: to the push; it tells whether the registry lists by itself.
        :raises Conflict: other clients kept changing the list.
        """
        if answer.headers.get("OCI-Subject") == subject.digest:
            self._api = True
            return
        self._api = False
        self._update(subject, referrer, present=True)

    def removed(self, referrer: Descriptor, subject: Descriptor) -> None:
        """Make a manifest that has been deleted be listed no longer."""
        if self._api is False or (self._api is None and self._by_api(subject, None) is None):
            self._update(subject, referrer, present=False)

    def _by_api(self, subject: Descriptor, artifact_type: str | None) -> list[Descriptor] | None:
        """What the API lists; None where there is none."""
        found = []
        doing = f"list what refers to {subject.digest} in {self._at.repository}"
        for response, body in pages(
            self._at.client,
            self._at.path("referrers", subject.digest),
            doing=doing,
            scope=self._at.pull,
            params={"artifactType": artifact_type} if artifact_type else {},
            headers={"Accept": INDEX},
            accept=(200, *_NO_API),
        ):
            if response.status_code != 200:
                self._api = False
                return None
            page = parse_object(body)
            if page is None or not _is_index(page):
                if self._api:
                    raise no_object(doing)
                # Registries without the API may answer with a page for people; so may a proxy, so the API is asked
                # again next time, and the tag has to be answered as only a registry does.
                return None
            found += _entries(page, self._at.name)
        self._api = True
        return found

    def _by_tag(self, subject: Descriptor) -> tuple[dict[str, Any], list[Descriptor]]:
        """The index of the tag schema and its entries; empty where there is none."""
        tag = referrers_tag(subject.digest)
        try:
            descriptor, data = self._manifests.read(tag)
        except NotFound:
            return {}, []
        # Some registries take the tag for the digest and answer with the subject itself.
        if descriptor.media_type != INDEX or descriptor.digest == subject.digest:
            return {}, []
        value = parse_object(data)
        if value is None or not _is_index(value):
            raise VerificationFailed(f"The list of referrers {tag} in {self._at.name} is damaged: it is no index.")
        return value, _entries(value, self._at.name)

    def _update(self, subject: Descriptor, referrer: Descriptor, *, present: bool) -> None:
        tag = referrers_tag(subject.digest)
        with self._lock:
            for attempt in range(_ROUNDS):
                if attempt:
                    time.sleep(_SETTLE * (1 + attempt * random.random()))  # noqa: S311 - so that two clients part
                value, entries = self._by_tag(subject)
                if any(entry.digest == referrer.digest for entry in entries) == present:
                    # Read once more after our own write: another client may have written over it.
                    return
                kept = [entry for entry in entries if entry.digest != referrer.digest]
                after = [*kept, referrer] if present else kept
                data = _index(value, after, self._at.name)
                if len(data) > MAX_MANIFEST_SIZE:
                    raise Conflict(f"Too many manifests refer to {subject.digest} in {self._at.name} to list one more.")
                self._manifests.put(INDEX, data, tag)
        raise Conflict(
            f"Could not list {referrer.digest} as referring to {subject.digest} in {self._at.name}: "
            "other clients kept changing the list.",
            hint="The manifest itself is stored. Try again when they are done.",
        )


def referrers_tag(digest: str) -> str:
    """The tag under which a registry without the API keeps what refers to ``digest``."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm[:32]}-{encoded[:64]}"


def _is_index(value: Any) -> bool:
    # Go's tools write null for an empty list.
    return (
        isinstance(value, dict) and isinstance(value.get("manifests"), list | None) and value.get("schemaVersion") == 2
    )


def _entries(value: dict[str, Any], where: str) -> list[Descriptor]:
    try:
        return [Descriptor.from_json(item) for item in value.get("manifests") or []]
    except InvalidInput as error:
        raise VerificationFailed(f"A list of referrers in {where} is damaged: {error}") from error


def _index(value: dict[str, Any], entries: list[Descriptor], where: str) -> bytes:
    manifests = [entry.to_json() for entry in entries]
    more = {key: item for key, item in value.items() if key not in ("schemaVersion", "mediaType", "manifests")}
    changed = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, **more}
    try:
        return json.dumps(changed, separators=(",", ":")).encode()
    except RecursionError as error:  # what was read a few calls further up need not go back down here
        raise VerificationFailed(f"A list of referrers in {where} is damaged: it is nested too deeply.") from error

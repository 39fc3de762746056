"""Lists that come in pages (distribution specification 1.1, "Listing Tags"; RFC 8288 for ``Link``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import requests

from airflow_provider_kitops.oci._http import RegistryClient
from airflow_provider_kitops.oci._origin import Origin, joined
from airflow_provider_kitops.oci.errors import LimitExceeded, RegistryUnavailable, VerificationFailed

#: Most bytes of all pages of a list: half a million tags of 60 characters.
_MAX_LIST = 32 * 1024 * 1024


def pages(
    client: RegistryClient, path: str, *, doing: str, scope: str, params: dict[str, str], **more: Any
) -> Iterator[tuple[requests.Response, bytes]]:
    """The answers of a list, one after the other, each with its body.

    :raises LimitExceeded: there are more of them than a real list has.
    :raises VerificationFailed: the next page would be at another origin, or has been seen already.
    """
    seen: set[str] = set()
    size = 0
    while True:
        response, body = client.read("GET", path, doing=doing, scope=scope, params=params, **more)
        size += len(body)
        if size > _MAX_LIST:
            raise LimitExceeded(f"Could not {doing}: the list is longer than {_MAX_LIST} bytes.")
        yield response, body
        following = response.links.get("next", {}).get("url")
        if not following:
            return
        path, params = joined(response.url, following), {}
        if Origin.of(path) != client.origin or path in seen:
            raise VerificationFailed(f"Could not {doing}: the registry {client.registry} names a wrong next page.")
        seen.add(path)


def parse_object(body: bytes) -> dict[str, Any] | None:
    """A JSON object, or None for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def no_object(doing: str) -> RegistryUnavailable:
    """The error for a success whose body is not what a registry sends: taken for empty, it would hide what is there."""
    return RegistryUnavailable(
        f"Could not {doing}: the answer is no JSON object.",
        hint="A proxy or a login page may have answered in the registry's place: check its address.",
    )


def texts(body: bytes, key: str, doing: str) -> list[str]:
    """A list of texts in an answer; null counts as empty, as some registries write an empty list so.

    :raises RegistryUnavailable: it is something else, or missing.
    """
    value = parse_object(body)
    if value is None:
        raise no_object(doing)
    if key not in value:
        raise RegistryUnavailable(f"Could not {doing}: the registry's answer has no {key}.")
    items = [] if value[key] is None else value[key]
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise RegistryUnavailable(f"Could not {doing}: the registry's answer is no list of {key}.")
    return items

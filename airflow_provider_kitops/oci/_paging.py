"""Lists that come in pages (distribution specification 1.1, "Listing Tags"; RFC 8288 for ``Link``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import requests

from airflow_provider_kitops.oci._http import RegistryClient
from airflow_provider_kitops.oci._origin import Origin
from airflow_provider_kitops.oci.errors import RegistryUnavailable, VerificationFailed


def pages(
    client: RegistryClient, path: str, *, doing: str, scope: str, params: dict[str, str], **more: Any
) -> Iterator[tuple[requests.Response, dict[str, Any]]]:
    """The answers of a list, one after the other, each with its JSON object (empty if it has none).

    :raises VerificationFailed: the next page would be at another origin, or has been seen already.
    """
    seen: set[str] = set()
    while True:
        response, body = client.read("GET", path, doing=doing, scope=scope, params=params, **more)
        yield response, parse_object(body)
        following = response.links.get("next", {}).get("url")
        if not following:
            return
        path, params = urljoin(response.url, following), {}
        if Origin.of(path) != client.origin or path in seen:
            raise VerificationFailed(f"Could not {doing}: the registry {client.registry} names a wrong next page.")
        seen.add(path)


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object, or an empty one for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def texts(value: dict[str, Any], key: str, doing: str) -> list[str]:
    """A list of texts in an answer; null counts as empty.

    :raises RegistryUnavailable: it is something else.
    """
    items = value.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise RegistryUnavailable(f"Could not {doing}: the registry's answer is no list of {key}.")
    return items

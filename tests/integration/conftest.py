"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.programs import tiny_base, trained
from tests.proxy import Proxy
from tests.registry import Registry, each_registry, open_registry, private_registry, referrers_registry, registry

__all__ = [
    "each_registry",
    "open_registry",
    "private_registry",
    "referrers_registry",
    "registry",
    "tiny_base",
    "trained",
]


@pytest.fixture
def proxy(open_registry: Registry) -> Iterator[Proxy]:
    """What stands between a test and the registry, and can break what passes."""
    with Proxy(open_registry.host) as running:
        yield running

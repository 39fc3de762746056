"""Fixtures of the integration tests."""

from tests.registry import each_registry, open_registry, private_registry, referrers_registry, registry

__all__ = ["each_registry", "open_registry", "private_registry", "referrers_registry", "registry"]

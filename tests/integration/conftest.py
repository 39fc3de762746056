"""Fixtures of the integration tests."""

from tests.registry import private_registry, registry

__all__ = ["private_registry", "registry"]

"""What holds for promotion on the local layout holds on a registry with basic authentication."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.registry import Registry
from tests.unit.airflow.conftest import Connections, connections
from tests.unit.airflow.test_promotion import (
    test_a_better_challenger_goes_all_the_way,
    test_a_champion_that_moved_meanwhile_is_a_conflict,
    test_a_rollback_goes_to_the_digest_before_and_only_once,
    test_a_second_promotion_changes_nothing_and_sends_no_event,
    world,
)

__all__ = [
    "connections",
    "test_a_better_challenger_goes_all_the_way",
    "test_a_champion_that_moved_meanwhile_is_a_conflict",
    "test_a_rollback_goes_to_the_digest_before_and_only_once",
    "test_a_second_promotion_changes_nothing_and_sends_no_event",
    "world",
]


@pytest.fixture
def layout(private_registry: Registry, connections: Connections, tmp_path: Path) -> None:
    """In the layout's place: a namespace of the registry for each test."""
    connections.set(
        host=private_registry.host,
        login=private_registry.username,
        password=private_registry.password,
        extra={"plain_http": True, "namespace": f"space-{abs(hash(tmp_path))}"},
    )

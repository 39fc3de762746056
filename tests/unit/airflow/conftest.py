"""Airflow's face without Airflow's database: connections come from the environment, contexts are built by hand."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

# Before anything imports airflow, which reads them then.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-unit-"))
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"


class Connections:
    """Sets connections for one test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def set(self, conn_id: str = "kitops_default", conn_type: str = "kitops", **fields: Any) -> None:
        value = json.dumps({"conn_type": conn_type, **fields})
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", value)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    return Connections(monkeypatch)


@pytest.fixture
def layout(tmp_path: Path, connections: Connections) -> Path:
    """A local layout, and ``kitops_default`` naming it."""
    root = tmp_path / "layout"
    connections.set(extra={"layout": str(root)})
    return root


class FakeTaskInstance(SimpleNamespace):
    """What operators use of a task instance."""

    def __init__(self, **fields: Any) -> None:
        defaults = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1, "try_number": 1, "xcom": {}}
        super().__init__(**{**defaults, **fields})

    @property
    def id(self) -> str:
        """Another one for each try, and a later one's is larger, as Airflow's are (UUIDs of version 7)."""
        return f"{self.dag_id}-{self.run_id}-{self.try_number:08}"

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcom[key] = value


@pytest.fixture
def context() -> dict[str, Any]:
    return {"ti": FakeTaskInstance()}

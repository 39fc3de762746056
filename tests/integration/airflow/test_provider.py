"""Airflow finds the provider, its connection type and its form; DAGs that use it run in one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.registry import Registry

from .harness import Airflow

DAGS = Path(__file__).with_name("dags")


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, private_registry: Registry) -> Airflow:
    root = tmp_path_factory.mktemp("airflow")
    (root / "context").mkdir()
    (root / "context" / "weights.bin").write_bytes(b"weights" * 1000)
    connections = {
        "kitops_default": {"conn_type": "kitops", "extra": {"layout": str(root / "layout")}},
        "kitops_registry": {
            "conn_type": "kitops",
            "host": private_registry.host,
            "login": private_registry.username,
            "password": private_registry.password,
            "extra": {"plain_http": True, "namespace": "team"},
        },
    }
    installation = Airflow(root / "home", DAGS, connections)
    installation.env["PROVIDER_TEST_WORK"] = str(root)
    installation.migrate()
    return installation


def test_airflow_lists_the_provider(airflow: Airflow) -> None:
    providers = json.loads(airflow.run("providers", "list", "--output", "json").stdout)
    assert "airflow-provider-kitops" in {provider["package_name"] for provider in providers}


def test_airflow_knows_the_connection_type_and_its_form(airflow: Airflow) -> None:
    hooks = json.loads(airflow.run("providers", "hooks", "--output", "json").stdout)
    ours = [hook for hook in hooks if hook["connection_type"] == "kitops"]
    assert ours
    assert ours[0]["class"] == "airflow_provider_kitops.hooks.kitops.KitopsHook"
    widgets = airflow.run("providers", "widgets", "--output", "json").stdout
    assert all(f"extra__kitops__{name}" in widgets for name in ("layout", "namespace", "plain_http", "mutable_tags"))


@pytest.mark.parametrize("connection", ["kitops_default", "kitops_registry"])
def test_the_test_button_works(airflow: Airflow, connection: str) -> None:
    assert "Connection success" in airflow.run("connections", "test", connection).stdout


def test_every_dag_of_the_tests_parses(airflow: Airflow) -> None:
    assert "No data found" in airflow.run("dags", "list-import-errors", "-l").stdout


def test_the_verbs_run_as_a_dag(airflow: Airflow) -> None:
    result = airflow.run("dags", "test", "store_roundtrip")
    assert "operator extra link" not in result.stdout + result.stderr
    assert airflow_password(airflow) not in result.stdout + result.stderr
    unpacked = Path(airflow.env["PROVIDER_TEST_WORK"]) / "unpack" / "weights.bin"
    assert unpacked.read_bytes() == b"weights" * 1000


def test_a_gate_that_does_not_promote_skips_what_follows(airflow: Airflow) -> None:
    result = airflow.run("dags", "test", "gate_skips")
    assert "promoted what was rejected" not in result.stdout + result.stderr


def airflow_password(airflow: Airflow) -> str:
    password = json.loads(airflow.env["AIRFLOW_CONN_KITOPS_REGISTRY"])["password"]
    assert password
    return str(password)

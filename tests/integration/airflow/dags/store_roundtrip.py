"""Pack, resolve, push to another store, unpack: references travel as the outputs of tasks."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import dag, task

from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.operators.pack import KitPackOperator
from airflow_provider_kitops.operators.push import KitPushOperator
from airflow_provider_kitops.operators.unpack import KitUnpackOperator
from airflow_provider_kitops.sensors.tag import ModelKitTagSensor

WORK = Path(os.environ.get("PROVIDER_TEST_WORK", "/nonexistent"))


@dag(schedule=None, catchup=False)
def store_roundtrip() -> None:
    packed = KitPackOperator(
        task_id="pack",
        context_directory=str(WORK / "context"),
        reference="demo/model:v1",
        kitfile={
            "manifestVersion": "1.0.0",
            "package": {"name": "{{ dag.dag_id }}", "version": "1.0.0"},
            "model": {"path": "weights.bin"},
        },
        tags=["latest"],
    )
    there = ModelKitTagSensor(task_id="there", reference="demo/model:v1", poke_interval=1, timeout=10)
    pushed = KitPushOperator(
        task_id="push",
        source=packed.output,
        source_conn_id="kitops_default",
        destination="copied/model:v1",
        kitops_conn_id="kitops_registry",
    )
    unpacked = KitUnpackOperator(
        task_id="unpack",
        reference=pushed.output,
        directory=str(WORK / "{{ ti.task_id }}"),
        kitops_conn_id="kitops_registry",
    )

    @task
    def compare(first: dict[str, object], second: dict[str, object]) -> None:
        resolved = KitopsHook("kitops_registry").resolve("copied/model:v1")
        assert first["digest"] == second["digest"] == resolved["digest"]

    packed >> there >> pushed
    compare(packed.output, unpacked.output)


store_roundtrip()

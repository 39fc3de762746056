"""Every verb that moves or names a ModelKit, between two stores: references travel as the outputs of tasks."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import Asset, dag, task

from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.operators.copy import KitCopyOperator
from airflow_provider_kitops.operators.pack import KitPackOperator
from airflow_provider_kitops.operators.pull import KitPullOperator
from airflow_provider_kitops.operators.push import KitPushOperator
from airflow_provider_kitops.operators.remove import KitRemoveOperator
from airflow_provider_kitops.operators.tag import KitTagOperator
from airflow_provider_kitops.operators.unpack import KitUnpackOperator
from airflow_provider_kitops.operators.untag import KitUntagOperator
from airflow_provider_kitops.sensors.tag import ModelKitTagSensor

WORK = Path(os.environ.get("PROVIDER_TEST_WORK", "/nonexistent"))


@dag(schedule=None, catchup=False, params={"release": "released/model"})
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

    tagged = KitTagOperator(
        task_id="tag",
        reference=pushed.output,
        destination="{{ params.release }}:v1",
        tags=["champion"],
        kitops_conn_id="kitops_registry",
        outlets=[Asset("released")],
    )
    copied = KitCopyOperator(
        task_id="copy",
        source=tagged.output,
        source_conn_id="kitops_registry",
        destination="released/model:{{ ti.task_id }}",
    )
    pulled = KitPullOperator(
        task_id="pull",
        source=tagged.output,
        destination="pulled/model:v1",
        destination_layout=str(WORK / "pulled"),
        kitops_conn_id="kitops_registry",
    )
    untagged = KitUntagOperator(
        task_id="untag", reference=tagged.output, tags=["champion"], kitops_conn_id="kitops_registry"
    )
    removed = KitRemoveOperator(task_id="remove", reference=copied.output)

    @task
    def check(packed: dict[str, object], pulled: dict[str, object], untagged: dict[str, object]) -> None:
        assert packed["digest"] == pulled["digest"] == untagged["digest"]
        registry = KitopsHook("kitops_registry")
        assert registry.resolve("released/model:v1")["digest"] == packed["digest"]
        assert registry.resolve("released/model:champion", default=None) is None
        assert KitopsHook().resolve(f"released/model@{packed['digest']}", default=None) is None

    packed >> there >> pushed
    [pulled, removed] >> untagged
    removed >> check(packed.output, pulled.output, untagged.output)
    compare(packed.output, unpacked.output)


store_roundtrip()

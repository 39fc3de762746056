"""A sensor that has deferred until the champion moves, and a program that is killed once on the way."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Asset, dag, task

from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.operators.unpack import KitUnpackOperator
from airflow_provider_kitops.operators.workload import WorkloadLocalOperator
from airflow_provider_kitops.sensors.tag import ModelKitTagSensor

WORK = Path(os.environ.get("PROVIDER_TEST_WORK", "/nonexistent"))
PROGRAM = r"""
import os, pathlib, time
checkpoints, out = pathlib.Path(os.environ["KITOPS_CHECKPOINTS"]), pathlib.Path(os.environ["KITOPS_OUTPUT"])
began = checkpoints / "began"
if not began.exists():
    began.write_text("first try")
    (pathlib.Path(os.environ["PROVIDER_TEST_WORK"]) / "pids").write_text(f"{os.getpid()}")
    time.sleep(600)
source = pathlib.Path(os.environ["KITOPS_INPUTS"]) / "model" / "weights.bin"
(out / "upper.bin").write_bytes(source.read_bytes().upper())
(out / "metrics.json").write_text('{"resumed": true}')
"""


@dag(schedule=None, catchup=False)
def tag_wait() -> None:
    @task
    def before() -> dict[str, object]:
        return KitopsHook().resolve("demo/model:champion")

    found = before()
    moved = ModelKitTagSensor(
        task_id="moved",
        reference="demo/model:champion",
        moved_from=found,
        deferrable=True,
        poke_interval=1,
        timeout=300,
    )
    KitUnpackOperator(task_id="unpack", reference=moved.output, directory=str(WORK / "new"))
    WorkloadLocalOperator(
        task_id="work",
        inputs={"model": found},
        command=["python", "-c", PROGRAM],
        destination="demo/upper:v1",
        kitfile={
            "manifestVersion": "1.0.0",
            "package": {"name": "upper"},
            "model": {"path": "upper.bin"},
            "docs": [{"path": "metrics.json"}],
        },
        retries=1,
        retry_delay=timedelta(seconds=0),
        outlets=[Asset("upper")],
    )


tag_wait()

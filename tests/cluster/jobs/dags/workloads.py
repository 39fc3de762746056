"""Any workload as a Job, all of it chosen by the run's conf."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, dag

from airflow_provider_kitops.operators.kubernetes import FineTuneKubernetesOperator, WorkloadKubernetesOperator

_ANY: dict[str, Any] = {
    "inputs": "{{ params.inputs }}",
    "command": "{{ params.command }}",
    "config": "{{ params.config }}",
    "destination": "{{ params.destination }}",
    "kitfile": {"manifestVersion": "1.0.0", "package": {"name": "made"}, "docs": [{"path": "result.txt"}]},
    "image": "{{ params.image }}",
    "job": "{{ params.job }}",
    "kitops_conn_id": "{{ params.kitops_conn_id }}",
}
_PARAMS: dict[str, Any] = {
    "inputs": {},
    "command": ["true"],
    "config": {},
    "destination": "made/nothing",
    "image": "",
    "job": {},
    "kitops_conn_id": "kitops_default",
}


def tell(context: Any) -> None:
    """What a notifier would be given."""
    error = context["exception"]
    outcome = getattr(error, "outcome", None)
    print(f"NOTIFIED {type(error).__name__} {outcome and outcome.reason}")


def _define(dag_id: str, **arguments: Any) -> None:
    @dag(
        dag_id=dag_id,
        schedule=None,
        catchup=False,
        params=_PARAMS,
        max_active_runs=100,
        render_template_as_native_obj=True,
    )
    def workload() -> None:
        WorkloadKubernetesOperator(
            task_id="run", **_ANY, on_failure_callback=tell, outlets=[Asset("made")], **arguments
        )

    workload()


_define("once")
_define("twice", retries=1, retry_delay=timedelta(seconds=1))
_define("timed", execution_timeout=timedelta(seconds=60))
_define("on_the_worker", deferrable=False)
_define("on_the_worker_twice", deferrable=False, retries=1, retry_delay=timedelta(seconds=1))


@dag(
    dag_id="many",
    schedule=None,
    catchup=False,
    params=_PARAMS,
    max_active_tasks=100,
    render_template_as_native_obj=True,
)
def many() -> None:
    for number in range(50):
        WorkloadKubernetesOperator(task_id=f"run_{number}", **_ANY)


many()


@dag(
    dag_id="fine_tune",
    schedule=None,
    catchup=False,
    params={**_PARAMS, "base": "", "dataset": ""},
    render_template_as_native_obj=True,
)
def fine_tune() -> None:
    FineTuneKubernetesOperator(
        task_id="run",
        base="{{ params.base }}",
        dataset="{{ params.dataset }}",
        destination="{{ params.destination }}",
        config="{{ params.config }}",
        image="{{ params.image }}",
        job="{{ params.job }}",
    )


fine_tune()

"""A gate that does not promote: the tasks after it are skipped, one with a trigger rule of its own is not."""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_kitops.operators.gate import PromotionGateOperator


class RejectingGate(PromotionGateOperator):
    """The gate with its verdict given, so that what is tried is only how Airflow goes on."""

    def _decide(self):  # type: ignore[no-untyped-def]
        return {"outcome": "reject", "reason": "worse", "mean": -0.5}


@dag(schedule=None, catchup=False)
def gate_skips() -> None:
    gate = RejectingGate(task_id="gate", report="demo/model:report", policy={}, ignore_downstream_trigger_rules=False)

    @task
    def promote() -> None:
        raise AssertionError("promoted what was rejected")

    @task(trigger_rule="none_failed")
    def tell(answer: dict[str, object]) -> None:
        assert answer["outcome"] == "reject"

    promoted = promote()
    gate >> promoted >> tell(gate.output)


gate_skips()

"""Fine-tune a challenger, let a judge compare it with the champion, and promote it if the evidence says so.

Copy this file and change the parameters. Where the ModelKits live is the connection's business (a directory on a
laptop, a registry in production), where programs run is `[kitops] execution`, and neither changes a task.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, Param, dag, get_current_context, task

from airflow_provider_kitops.operators.execution import execution
from airflow_provider_kitops.operators.gate import PromotionGateOperator
from airflow_provider_kitops.operators.judge import LLMJudgeOperator
from airflow_provider_kitops.operators.promote import ModelKitPromoteOperator
from airflow_provider_kitops.sensors.tag import ModelKitTagSensor

run = execution()

#: How a message becomes a prompt. The untuned base is asked in the same way as it is trained.
ASK: dict[str, Any] = {"template": "{text}\n\nTopic:", "max_length": 64}
TRAINING: dict[str, Any] = {
    **ASK,
    "task": "causal-lm",
    "batch_size": 8,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "lora_rank": 16,
    "lora_alpha": 32,
    "lora_targets": ["q_proj", "v_proj"],
    "checkpoint_steps": 10,
}
GENERATION: dict[str, Any] = {**ASK, "max_new_tokens": 4, "batch_size": 16}
JUDGING: dict[str, Any] = {
    "criteria": "Each answer names the topic of a message. The better answer is the one that is correct.",
    # The reference says all that a small judge needs; a large one may want to see the message too.
    "show_prompt": False,
    "concurrency": 1,
}
GATE: dict[str, Any] = {"margin": 0.0, "confidence": 0.95, "minimum_items": 50}

#: Downstream DAGs (deployment, say) schedule on this: it gets an event whenever the champion changes.
champion_asset = Asset(name="news-champion", uri="kitops://news/classifier/champion")


@dag(
    schedule=None,  # "@weekly" retrains every week
    catchup=False,
    max_active_runs=1,  # two challengers at once would be judged against the same champion
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["kitops"],
    doc_md=__doc__,
    params={
        "model": Param("news/classifier", type="string", description="Repository of challengers and champion"),
        "predictions": Param("news/predictions", type="string", description="Repository of their answers"),
        "base": Param("news/base:latest", type="string", description="Base model to fine-tune"),
        "dataset": Param("news/dataset:latest", type="string", description="Training data, held-out items, pairs"),
        "judge_model": Param("news/judge:latest", type=["string", "null"], description="GGUF to serve as the judge"),
        "llm_conn_id": Param(None, type=["string", "null"], description="Or: connection with the judge's endpoint"),
        "steps": Param(36, type="integer", minimum=1, description="Optimizer steps"),
        "seed": Param(0, type="integer", minimum=0, description="Seed of training and judge"),
        "training": Param(TRAINING, type="object", description="Further settings of the program finetune"),
        "generation": Param(GENERATION, type="object", description="Settings of the program generate"),
        "judging": Param(JUDGING, type="object", description="Further settings of the judge"),
        "gate": Param(GATE, type="object", description="Settings of the gate, fixed before the judge runs"),
    },
)
def champion_challenger() -> None:
    base = ModelKitTagSensor(
        task_id="base", reference="{{ params.base }}", deferrable=True, poke_interval=30, timeout=3600
    )
    dataset = ModelKitTagSensor(
        task_id="dataset", reference="{{ params.dataset }}", deferrable=True, poke_interval=30, timeout=3600
    )

    @task(multiple_outputs=True)
    def incumbent(base: dict[str, Any], dataset: dict[str, Any]) -> dict[str, Any]:
        """Who is to be beaten: the champion, or the untuned base while there is none.

        The dataset is looked at too: items that no judge can read should not be found after hours of training.
        """
        from airflow_provider_kitops.hooks.kitops import KitopsHook
        from airflow_provider_kitops.judge.config import JudgeConfig
        from airflow_provider_kitops.promotion.judging import check_inputs

        params, hook = get_current_context()["params"], KitopsHook()
        with hook.store() as store:
            check_inputs(store, dataset["reference"], config=JudgeConfig.parse(params["judging"]))
        champion = hook.resolve(f"{params['model']}:champion", default=None)
        return {"champion": champion, "model": champion or base}

    beaten_by = incumbent(base.output, dataset.output)

    challenger = run.fine_tune(
        task_id="fine_tune",
        base=base.output,
        dataset=dataset.output,
        destination="{{ params.model }}:challenger",
        config="{{ dict(params.training, max_steps=params.steps, seed=params.seed) }}",
    )
    beaten_by >> challenger
    challenger_answers = run.generate(
        task_id="ask_challenger",
        model=challenger.output,
        items=dataset.output,
        destination="{{ params.predictions }}:challenger",
        config="{{ params.generation }}",
    )
    champion_answers = run.generate(
        task_id="ask_champion",
        model=beaten_by["model"],
        items=dataset.output,
        destination="{{ params.predictions }}:champion",
        config="{{ params.generation }}",
    )
    report = LLMJudgeOperator(
        task_id="judge",
        challenger=challenger.output,
        champion=beaten_by["model"],
        challenger_predictions=challenger_answers.output,
        champion_predictions=champion_answers.output,
        items=dataset.output,
        judge_model="{{ params.judge_model }}",
        llm_conn_id="{{ params.llm_conn_id }}",
        config="{{ dict(params.judging, seed=params.seed) }}",
        policy="{{ params.gate }}",
    )
    decision = PromotionGateOperator(
        task_id="gate", report=report.output, policy="{{ params.gate }}", champion=beaten_by["champion"]
    )
    ModelKitPromoteOperator(
        task_id="promote",
        challenger=challenger.output,
        decision=decision.output,
        expected=beaten_by["champion"],
        tag="champion",
        outlets=[champion_asset],
    )


champion_challenger()

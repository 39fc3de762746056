"""What is wrong in a DAG file is told where the file is read, not after the training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.operators.judge import LLMJudgeOperator
from airflow_provider_kitops.operators.pack import KitPackOperator
from airflow_provider_kitops.operators.tag import KitTagOperator
from airflow_provider_kitops.operators.unpack import KitUnpackOperator
from airflow_provider_kitops.operators.workload import FineTuneLocalOperator, GenerateLocalOperator

ROOT = Path(__file__).parents[3]


def judge(**arguments: Any) -> LLMJudgeOperator:
    models = ("challenger", "champion", "challenger_predictions", "champion_predictions", "items")
    arguments |= dict.fromkeys(models, "a/b:c")
    return LLMJudgeOperator(task_id="judge", llm_conn_id="judge", **arguments)


def fine_tune(config: Any) -> FineTuneLocalOperator:
    return FineTuneLocalOperator(task_id="tune", base="a/b:c", dataset="a/d:c", destination="a/e", config=config)


def generate(config: Any) -> GenerateLocalOperator:
    return GenerateLocalOperator(task_id="ask", model="a/b:c", items="a/d:c", destination="a/e", config=config)


def tag(**arguments: Any) -> KitTagOperator:
    return KitTagOperator(task_id="tag", reference="a/b:c", **arguments)


def unpack(**arguments: Any) -> KitUnpackOperator:
    return KitUnpackOperator(task_id="unpack", reference="a/b:c", **{"directory": "/out", **arguments})


def pack(**arguments: Any) -> KitPackOperator:
    return KitPackOperator(task_id="pack", reference="a/b:c", **{"context_directory": "/in", **arguments})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: fine_tune({"epoch": 3}), r"^config of task tune .*epoch: unknown name \(did you mean epochs\?\)\.$"),
        (lambda: fine_tune({"epochs": -1}), "config of task tune cannot be used: epochs: .*greater than 0"),
        (lambda: fine_tune({"epoch": "{{ params.epochs }}"}), r"epoch: unknown name \(did you mean epochs"),
        (lambda: generate({"temprature": 0}), "config of task ask .*did you mean temperature"),
        (lambda: judge(config={"critera": "Be right."}), "config of task judge .*did you mean criteria"),
        (lambda: judge(config={"qualification": {"minimum_pair": 9}}), "minimum_pair: .*did you mean minimum_pairs"),
        (lambda: judge(policy={"minimum_item": 9}), "policy of task judge .*did you mean minimum_items"),
        (lambda: judge(policy={"margin": 2}), "policy of task judge cannot be used: margin: .*less than 1"),
        (lambda: tag(), "Task tag names no tag to set"),
        (lambda: tag(destination="host:5000/a/b", tags=[]), "Task tag names no tag to set"),
        (lambda: unpack(overwrite=True, ignore_existing=True), "not both"),
        (lambda: unpack(directory="out"), "directory of task unpack is 'out', which depends on where"),
        (lambda: pack(context_directory=Path("ctx")), "context_directory of task pack is 'ctx'"),
        (lambda: pack(compression="gz"), r"compression of task pack is 'gz' \(did you mean gzip\?\)"),
        (lambda: pack(layer_format="rw"), "layer_format of task pack is 'rw'.*Use one of tar, raw"),
        (lambda: pack(manifest_format="kit"), "manifest_format of task pack is 'kit'"),
    ],
)
def test_what_is_wrong_in_plain_settings_is_told_at_once(make: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        make()


def test_what_is_not_known_yet_is_left_to_the_task() -> None:
    @task
    def chosen() -> dict[str, Any]:
        return {}

    with DAG("unknown_yet", schedule=None):
        output = chosen()
        asked = generate({"temperature": output})
        judged = judge(config={"seed": "{{ params.seed }}", "concurrency": 0}, policy=output)
    assert asked.upstream_task_ids == judged.upstream_task_ids == {"chosen"}
    fine_tune("{{ params.training }}")
    generate({"template": "{{ params.template }}"})
    generate({"labels": ["{% if params.two %}a{% endif %}"]})
    judge(config=None, policy=None)
    tag(destination="{{ params.where }}")
    tag(tags=["{{ params.tag }}"])
    tag(tags=output)
    tag(destination="a/b:d")
    unpack(directory="{{ params.out }}")
    unpack(directory=output)
    pack(context_directory="{% if 1 %}x{% endif %}")


def test_reading_a_dag_loads_neither_training_nor_statistics_nor_clients(tmp_path: Path) -> None:
    program = (
        "import runpy, sys\n"
        f"runpy.run_path({str(ROOT / 'dags' / 'champion_challenger.py')!r})\n"
        "from airflow_provider_kitops.operators.workload import FineTuneLocalOperator\n"
        "FineTuneLocalOperator(task_id='t', base='a/b:c', dataset='a/b:c', destination='a/b', config={'seed': 1})\n"
        "print([name for name in ('torch', 'transformers', 'openai', 'scipy', 'numpy') if name in sys.modules])"
    )
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "[]"

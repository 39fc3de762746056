"""The example DAGs, and the one in README, parse and are what they say."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.cli import main
from airflow_provider_kitops.operators.execution import execution
from airflow_provider_kitops.operators.workload import FineTuneLocalOperator, GenerateLocalOperator

ROOT = Path(__file__).parents[3]


def dags_of(names: dict[str, Any]) -> dict[str, Any]:
    from airflow.sdk import DAG

    found = [value for value in names.values() if isinstance(value, DAG)]
    return {dag.dag_id: dag for dag in found}


def load(name: str) -> Any:
    from airflow.sdk import DAG

    names = runpy.run_path(str(ROOT / "dags" / f"{name}.py"))
    dag = names[name]()
    assert isinstance(dag, DAG)
    return dag


def test_the_champion_is_promoted_only_behind_judge_and_gate() -> None:
    dag = load("champion_challenger")
    upstream = dag.get_task("promote").get_flat_relative_ids(upstream=True)
    assert upstream == {
        "base",
        "dataset",
        "incumbent",
        "fine_tune",
        "ask_challenger",
        "ask_champion",
        "judge",
        "gate",
    }
    assert dag.get_task("gate").downstream_task_ids == {"promote"}
    assert dag.max_active_runs == 1


def test_the_ingesting_dag_packs_base_datasets_and_judge() -> None:
    dag = load("ingest_modelkits")
    assert {"base", "dataset", "judge"} <= set(dag.task_ids)
    assert dag.get_task("judge").upstream_task_ids == {"has_judge"}


def test_the_releasing_dag_copies_and_tags_what_was_copied() -> None:
    dag = load("release_modelkit")
    copied, tagged = dag.get_task("copy"), dag.get_task("latest")
    assert copied.referrers
    assert tagged.reference.operator is copied
    assert [asset.name for asset in tagged.outlets] == ["news-classifier-release"]


def test_the_dag_in_the_readme_parses() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert len(code.splitlines()) <= 22
    names: dict[str, Any] = {}
    exec(code, names)
    (dag,) = dags_of(names).values()
    assert {dag.get_task(name).timeout for name in ("dataset", "champion")} == {600}
    assert dag.get_task("promote").get_flat_relative_ids(upstream=True) == {
        "dataset",
        "champion",
        "fine_tune",
        "ask_champion",
        "ask_challenger",
        "judge",
        "gate",
    }


def commands_of_the_readme() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^## Before the first run$.*?^```\n(.*?)^```$", text, re.M | re.S)
    return [shlex.split(line) for line in block.splitlines()]


def test_what_comes_before_the_first_run_puts_into_the_store_what_the_dag_in_the_readme_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connection, ingest, champion, last = commands_of_the_readme()
    assert connection[:4] == ["airflow", "connections", "add", "judge"]
    assert last == ["airflow", "dags", "test", "retrain_news"]
    dag = load(ingest[3])
    conf = json.loads(ingest[5])
    assert set(conf) <= set(dag.params)
    packed = [dag.get_task("base").reference, *(f"news/dataset:{tag}" for tag in conf["datasets"])]
    assert packed == ["news/base:latest", "news/dataset:latest"]

    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.gguf").write_bytes(b"weights")
    (tmp_path / "base" / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel: {path: .}\n")
    layout = ["--layout", str(tmp_path / "layout")]
    assert main([*layout, "pack", str(tmp_path / "base"), "-t", packed[0]]) == 0
    assert champion[:2] == ["modelkit", "--layout"]
    assert main([*layout, *champion[3:]]) == 0
    capsys.readouterr()
    assert main([*layout, "info", "news/classifier:champion"]) == 0


def test_the_mode_of_execution_is_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    local = execution()
    assert (local.fine_tune, local.generate) == (FineTuneLocalOperator, GenerateLocalOperator)
    monkeypatch.setenv("AIRFLOW__KITOPS__EXECUTION", "moon")
    with pytest.raises(ValueError, match=r"'moon'.*modes of this version are: local"):
        execution()

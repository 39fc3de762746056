"""The guides name every setting, and no setting that does not exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from airflow_provider_kitops.cluster.settings import JobSettings, OnNode
from airflow_provider_kitops.judge.config import JudgeConfig, QualificationBar
from airflow_provider_kitops.promotion.gate import GatePolicy
from airflow_provider_kitops.workload.finetune.config import FineTuneConfig
from airflow_provider_kitops.workload.generate.config import GenerateConfig

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "models"),
    [
        ("workloads.md", (FineTuneConfig, GenerateConfig)),
        ("judging.md", (JudgeConfig, QualificationBar, GatePolicy)),
    ],
)
def test_the_guide_names_every_setting_and_no_other(page: str, models: tuple[type[BaseModel], ...]) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    known = {name for model in models for name in model.model_fields}
    assert known <= set(re.findall(r"`(\w+)`", text))
    first_column = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.M)
    named = {name for cell in first_column for name in re.findall(r"`(\w+)`", cell)}
    assert named <= known


def test_the_guide_to_kubernetes_has_a_row_and_the_default_of_every_setting() -> None:
    page = (DOCS / "kubernetes.md").read_text(encoding="utf-8")
    text = page.partition("\n## Settings\n")[2].partition("\n## ")[0]
    told: dict[str, str] = {}
    for names, default in re.findall(r"^\| (`.+?) \| (.+?) \|", text, re.M):
        for name in re.findall(r"`(\w+)`", names):
            assert name not in told
            told[name] = default
    defaults = JobSettings().model_dump(mode="json")
    assert set(told) == set(defaults)
    nothing: tuple[Any, ...] = (None, {}, [], OnNode().model_dump(mode="json"))
    for name, cell in told.items():
        assert (cell == "–") == (defaults[name] in nothing), name
        assert cell == "–" or json.loads(cell.strip("`")) == defaults[name], name
    assert {f"`{name}`" for name in OnNode.model_fields} <= set(re.findall(r"`\w+`", text))

"""The guides name every setting, and no setting that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

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

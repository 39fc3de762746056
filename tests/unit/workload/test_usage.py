"""``--help`` of the reference programs says everything that they can be told."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from airflow_provider_kitops.workload.finetune.config import FineTuneConfig
from airflow_provider_kitops.workload.generate.config import GenerateConfig
from airflow_provider_kitops.workload.spec import DIRECTORIES
from airflow_provider_kitops.workload.usage import Usage

PROGRAMS = pytest.mark.parametrize(
    ("name", "settings"), [("finetune", FineTuneConfig), ("generate", GenerateConfig)], ids=["finetune", "generate"]
)


@pytest.mark.parametrize("flag", ["-h", "--help"])
@PROGRAMS
def test_help_comes_before_directories_and_before_the_training_libraries(
    name: str, settings: type[BaseModel], flag: str, tmp_path: Path
) -> None:
    module = f"airflow_provider_kitops.workload.{name}"
    missing = {variable: str(tmp_path / "missing") for variable in DIRECTORIES}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, "--seed", "1", flag],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **missing},
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith(f"usage: python -m {module} ")
    assert not re.search(r"\| +(torch|transformers|peft|trl)$", done.stderr, re.M)
    assert not (tmp_path / "missing").exists()


@PROGRAMS
def test_every_setting_has_type_default_and_meaning(name: str, settings: type[BaseModel]) -> None:
    told = str(Usage(name, "Does it.", settings))
    entries = dict(re.findall(r"^  --([\w-]+) \S+  \(default: [^\n]+\)\n      (\S.*)$", told, re.M))
    assert {each.replace("-", "_") for each in entries} == set(settings.model_fields)
    assert all(len(meaning) > 5 for meaning in entries.values())


def test_types_are_told_as_they_are_written() -> None:
    told = str(Usage("finetune", "Does it.", FineTuneConfig))
    for line in (
        "--learning-rate NUMBER  (default: 0.0002)",
        "--max-steps INTEGER  (default: not set)",
        "--method lora|qlora  (default: lora)",
        "--lora-targets TEXT,...  (default: all-linear)",
        "--chat true|false  (default: false)",
        "--text-column TEXT  (default: text)",
    ):
        assert f"  {line}\n" in told


def test_precedence_and_variables_are_told() -> None:
    told = str(Usage("finetune", "Does it.", FineTuneConfig))
    assert "A flag wins over the config file, the config file over the default" in told
    assert "--config FILE" in told
    for variable, default in DIRECTORIES.items():
        assert f"{variable}  (default: {default})" in told

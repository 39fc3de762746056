"""The reference of operators says what is so: its examples make a DAG, its tables name real arguments."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import BaseOperator

from airflow_provider_kitops.get_provider_info import CONNECTION_FIELDS, get_provider_info
from airflow_provider_kitops.operators._base import KitopsBaseOperator
from airflow_provider_kitops.operators.copy import KitCopyOperator
from airflow_provider_kitops.operators.gate import PromotionGateOperator
from airflow_provider_kitops.operators.inspection import (
    KitDiffOperator,
    KitInfoOperator,
    KitInspectOperator,
    KitListOperator,
)
from airflow_provider_kitops.operators.judge import LLMJudgeOperator
from airflow_provider_kitops.operators.pack import KitPackOperator
from airflow_provider_kitops.operators.promote import ModelKitPromoteOperator, ModelKitRollbackOperator
from airflow_provider_kitops.operators.pull import KitPullOperator
from airflow_provider_kitops.operators.push import KitPushOperator
from airflow_provider_kitops.operators.remove import KitRemoveOperator
from airflow_provider_kitops.operators.tag import KitTagOperator
from airflow_provider_kitops.operators.unpack import KitUnpackOperator
from airflow_provider_kitops.operators.untag import KitUntagOperator
from airflow_provider_kitops.operators.workload import (
    FineTuneLocalOperator,
    GenerateLocalOperator,
    WorkloadLocalOperator,
)
from airflow_provider_kitops.sensors.tag import ModelKitTagSensor

DOCS = Path(__file__).parents[3] / "docs"
OPERATORS = [
    KitPackOperator,
    KitPushOperator,
    KitPullOperator,
    KitCopyOperator,
    KitTagOperator,
    KitUntagOperator,
    KitRemoveOperator,
    KitUnpackOperator,
    KitInfoOperator,
    KitInspectOperator,
    KitDiffOperator,
    KitListOperator,
    ModelKitTagSensor,
    FineTuneLocalOperator,
    GenerateLocalOperator,
    WorkloadLocalOperator,
    LLMJudgeOperator,
    PromotionGateOperator,
    ModelKitPromoteOperator,
    ModelKitRollbackOperator,
]


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", (DOCS / "operators.md").read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def section(operator: type[BaseOperator]) -> str:
    found = [text for title, text in sections().items() if operator.__name__ in title.split(", ")]
    assert len(found) == 1, f"{operator.__name__} has no section of its own"
    return found[0]


def own_arguments(operator: type[BaseOperator]) -> set[str]:
    names: set[str] = set()
    for cls in operator.__mro__:
        if cls.__module__.startswith("airflow_provider_kitops") and "__init__" in vars(cls):
            parameters = inspect.signature(cls.__init__).parameters.values()
            names |= {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    return names


def test_the_examples_make_one_dag() -> None:
    code = re.findall(r"^```python\n(.*?)^```$", (DOCS / "operators.md").read_text(encoding="utf-8"), re.M | re.S)
    names: dict[str, Any] = {}
    try:
        exec("\n".join(code), names)
    finally:
        if "dag" in names:
            names["dag"].__exit__(None, None, None)
    dag = names["dag"]
    assert {type(task) for task in dag.tasks} >= set(OPERATORS)
    assert dag.get_task("promote").get_flat_relative_ids(upstream=True) >= {
        "gate",
        "judge",
        "fine_tune",
        "pack_dataset",
    }


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_every_argument_is_documented_in_docstring_and_page(operator: type[BaseOperator]) -> None:
    documented = set(re.findall(r":param (\w+):", operator.__doc__ or ""))
    assert documented == own_arguments(operator)
    told = set(re.findall(r"`(\w+)`", section(operator)))
    assert own_arguments(operator) - {"kitops_conn_id"} <= told


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_what_the_docstring_calls_templated_is(operator: type[BaseOperator]) -> None:
    assert isinstance(operator.template_fields, tuple)
    documentation = " ".join((operator.__doc__ or "").split())
    entries = re.split(r"(?=:param |:return:)", documentation)
    templated = {
        entry.split()[1].rstrip(":") for entry in entries if entry.startswith(":param") and "templated)" in entry
    }
    assert templated == set(operator.template_fields)


@pytest.mark.parametrize(
    "operator",
    [each for each in OPERATORS if each not in (KitPackOperator, KitUnpackOperator)],
    ids=lambda operator: operator.__name__,
)
def test_the_page_says_which_arguments_are_required(operator: type[BaseOperator]) -> None:
    rows = [line.split(" | ", 1) for line in section(operator).splitlines() if line.startswith("| `")]
    told = {name: meaning for names, meaning in rows for name in re.findall(r"`(\w+)`", names)}
    required = {
        parameter.name
        for cls in operator.__mro__
        if cls.__module__.startswith("airflow_provider_kitops") and "__init__" in vars(cls)
        for parameter in inspect.signature(cls.__init__).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    }
    assert {name for name in required if "required" not in told[name]} == set()
    optional = own_arguments(operator) - required - {"kitops_conn_id"}
    assert {name for name in optional if told[name].startswith("required")} == set()


def test_every_option_of_airflow_cfg_is_documented() -> None:
    options = get_provider_info()["config"]["kitops"]["options"]
    told = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", sections()["Options"], re.M))
    assert set(told) == set(options)
    assert told["execution"] == options["execution"]["default"]


def test_the_page_of_the_connection_names_every_field() -> None:
    text = (DOCS / "connection.md").read_text(encoding="utf-8")
    assert set(CONNECTION_FIELDS) <= set(re.findall(r"`(\w+)`", text))


def test_every_operator_goes_through_the_one_mapping_of_errors() -> None:
    for operator in OPERATORS:
        if operator is not ModelKitTagSensor:
            assert issubclass(operator, KitopsBaseOperator)
            assert operator.execute is KitopsBaseOperator.execute


def test_every_module_with_operators_is_announced_to_airflow() -> None:
    (announced,) = get_provider_info()["operators"]
    modules = {operator.__module__ for operator in OPERATORS if operator is not ModelKitTagSensor}
    assert set(announced["python-modules"]) == modules

"""Events of assets tell which ModelKit they are about, and nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Asset, AssetAlias
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.operators.copy import KitCopyOperator
from airflow_provider_kitops.operators.inspection import KitListOperator
from airflow_provider_kitops.operators.pack import KitPackOperator
from airflow_provider_kitops.operators.pull import KitPullOperator
from airflow_provider_kitops.operators.push import KitPushOperator
from airflow_provider_kitops.operators.tag import KitTagOperator

ASSET = Asset("classifier")


@pytest.fixture
def context(context: dict[str, Any]) -> dict[str, Any]:
    return {**context, "outlet_events": OutletEventAccessors()}


def packing(tmp_path: Path, **arguments: Any) -> KitPackOperator:
    (tmp_path / "weights.bin").write_bytes(b"weights")
    kitfile = {"manifestVersion": "1.0.0", "model": {"path": "weights.bin"}}
    return KitPackOperator(
        task_id="pack", context_directory=tmp_path, reference="demo/model:v1", kitfile=kitfile, **arguments
    )


@pytest.mark.parametrize("verb", ["pack", "push", "pull", "copy", "tag"])
def test_the_event_of_what_was_written_names_it(tmp_path: Path, layout: Path, context: Any, verb: str) -> None:
    other = AssetAlias("alias")
    made: dict[str, Any] = {"task_id": verb, "outlets": [ASSET, other]}
    packing(tmp_path).execute(context)
    operator = {
        "pack": lambda: packing(tmp_path, outlets=made["outlets"]),
        "push": lambda: KitPushOperator(source="demo/model:v1", source_layout=layout, destination="a/b:v1", **made),
        "pull": lambda: KitPullOperator(source="demo/model:v1", destination_layout=tmp_path / "worker", **made),
        "copy": lambda: KitCopyOperator(source="demo/model:v1", destination="a/b:v1", **made),
        "tag": lambda: KitTagOperator(reference="demo/model:v1", tags="champion", **made),
    }[verb]()
    answer = operator.execute(context)
    assert answer["digest"] == KitopsHook().resolve("demo/model:v1")["digest"]
    expected = {"reference": answer["reference"], "digest": answer["digest"]}
    assert context["outlet_events"][ASSET].extra == expected
    assert context["outlet_events"][other].asset_alias_events == []


def test_what_a_task_told_itself_stays(tmp_path: Path, layout: Path, context: Any) -> None:
    context["outlet_events"][ASSET].extra["ticket"] = "MLOPS-7"
    packing(tmp_path, outlets=[ASSET]).execute(context)
    assert set(context["outlet_events"][ASSET].extra) == {"ticket", "reference", "digest"}


def test_the_event_of_what_is_no_modelkit_is_left_alone(tmp_path: Path, layout: Path, context: Any) -> None:
    packing(tmp_path).execute(context)
    KitListOperator(task_id="list", repository="demo/model", outlets=[ASSET]).execute(context)
    assert context["outlet_events"][ASSET].extra == {}

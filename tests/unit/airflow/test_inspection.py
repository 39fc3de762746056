"""The operators that only look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_kitops.modelkit.index import INDEX_ARTIFACT_TYPE
from airflow_provider_kitops.oci.descriptor import INDEX
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.operators.inspection import (
    KitDiffOperator,
    KitInfoOperator,
    KitInspectOperator,
    KitListOperator,
)
from tests.unit.airflow.test_operators import pack


@pytest.fixture
def packed(tmp_path: Path, layout: Path, context: Any) -> dict[str, Any]:
    answer: dict[str, Any] = pack(tmp_path, tags=["latest"]).execute(context)
    return answer


@pytest.fixture
def index(tmp_path: Path, layout: Path, packed: dict[str, Any], context: Any) -> str:
    """An index ``demo/model:sizes`` of two ModelKits."""
    large = pack(tmp_path, b"large weights", reference="demo/model:v2").execute(context)
    store = Layout(layout, "demo/model")
    manifests = [
        {**store.resolve(kit["digest"]).to_json(), "modelMetadata": {"size": size}}
        for size, kit in (("small", packed), ("large", large))
    ]
    value = {"schemaVersion": 2, "mediaType": INDEX, "artifactType": INDEX_ARTIFACT_TYPE, "manifests": manifests}
    descriptor = store.push(INDEX, json.dumps(value).encode())
    store.tag(descriptor, "sizes")
    return descriptor.digest


def test_an_index_is_listed_and_looked_into(packed: dict[str, Any], index: str, context: Any) -> None:
    listed = KitListOperator(task_id="list", repository="demo/model").execute(context)
    assert [each["kind"] for each in listed] == ["modelkit", "index", "modelkit"]
    answer = KitInspectOperator(task_id="inspect", reference="demo/model:sizes").execute(context)
    assert (answer["reference"], answer["media_type"]) == (f"demo/model@{index}", INDEX)
    assert answer["size"] == listed[1]["size"]
    assert answer["modelkits"] == listed[1]["modelkits"]
    assert answer["modelkits"][0] == {"digest": packed["digest"], "labels": {"size": "small"}}
    one = KitInspectOperator(task_id="one", reference="demo/model:sizes", labels={"size": "small"}).execute(context)
    assert one["reference"] == packed["reference"]
    info = KitInfoOperator(task_id="info", reference="demo/model:sizes", labels={"size": "small"}).execute(context)
    assert info["reference"] == packed["reference"]
    with pytest.raises(AirflowFailException, match="no label"):
        KitInfoOperator(task_id="info", reference="demo/model:sizes").execute(context)


@pytest.mark.usefixtures("index")
def test_diff_chooses_from_an_index_on_each_side(packed: dict[str, Any], context: Any) -> None:
    sizes = {"old": "demo/model:sizes", "new": "demo/model:sizes"}
    arguments: dict[str, Any] = {**sizes, "old_labels": {"size": "small"}, "new_labels": {"size": "large"}}
    answer = KitDiffOperator(task_id="diff", files=True, **arguments).execute(context)
    assert answer["old"] == packed["reference"]
    assert answer["reference"] != packed["reference"]
    assert [file["new"]["size"] for file in answer["files"]] == [13]
    for wrong, said in (
        ({"old_labels": {"size": "huge"}}, "size=huge"),
        ({"new_labels": "size=small"}, "new_labels is str"),
        ({"new": packed}, "not an index"),
    ):
        with pytest.raises(AirflowFailException, match=said):
            KitDiffOperator(task_id="diff", **{**arguments, **wrong}).execute(context)


def test_info_gives_the_kitfile_or_one_field(packed: dict[str, Any], context: Any) -> None:
    whole = KitInfoOperator(task_id="info", reference=packed).execute(context)
    assert whole["digest"] == packed["digest"]
    assert whole["kitfile"]["package"]["version"] == "1.2.3"
    one = KitInfoOperator(task_id="info", reference="demo/model:v1", field=".package.version").execute(context)
    assert (one["field"], one["value"], "kitfile" in one) == (".package.version", "1.2.3", False)
    with pytest.raises(AirflowFailException, match=r"has no model\.flavour"):
        KitInfoOperator(task_id="info", reference=packed, field="model.flavour").execute(context)


def test_inspect_gives_manifest_and_config(packed: dict[str, Any], context: Any) -> None:
    answer = KitInspectOperator(task_id="inspect", reference=packed).execute(context)
    assert answer["manifest"]["artifactType"] == "application/vnd.kitops.modelkit.manifest.v1+json"
    assert answer["config"]["package"]["name"] == "demo"


def test_diff_compares_layers_and_on_request_files(tmp_path: Path, packed: dict[str, Any], context: Any) -> None:
    other = pack(tmp_path, b"other weights", reference="demo/model:v2").execute(context)
    same = KitDiffOperator(task_id="diff", old=packed, new="demo/model:v1").execute(context)
    assert same["identical"] is True
    answer = KitDiffOperator(task_id="diff", old=packed, new=other, files=True).execute(context)
    assert answer["digest"] == other["digest"]
    assert answer["old"] == packed["reference"]
    assert [layer["path"] for layer in answer["layers"]] == ["weights.bin"]
    (file,) = answer["files"]
    assert (file["path"], file["old"]["size"], file["new"]["size"]) == ("weights.bin", 7, 13)


def test_list_gives_each_modelkit_once_with_its_tags(packed: dict[str, Any], context: Any) -> None:
    answer = KitListOperator(task_id="list", repository="demo/model").execute(context)
    assert answer == [
        {
            "reference": packed["reference"],
            "kind": "modelkit",
            "digest": packed["digest"],
            "tags": ["latest", "v1"],
            "size": packed["size"],
            "name": "demo",
            "version": "1.2.3",
        }
    ]
    for wrong, said in (("demo/nothing", "demo/nothing"), ("demo/model:v1", "KitInfoOperator")):
        with pytest.raises(AirflowFailException, match=said):
            KitListOperator(task_id="list", repository=wrong).execute(context)


def test_labels_choose_nothing_in_a_single_modelkit(packed: dict[str, Any], context: Any) -> None:
    with pytest.raises(AirflowFailException, match="not an index"):
        KitInfoOperator(task_id="info", reference=packed, labels={"size": "small"}).execute(context)

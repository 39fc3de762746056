"""The command and indexes of ModelKits: listing, looking into, comparing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_kitops.modelkit.index import INDEX_ARTIFACT_TYPE
from airflow_provider_kitops.oci.descriptor import INDEX
from airflow_provider_kitops.oci.layout import Layout
from tests.unit.test_cli import Command, error_of


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """With an index ``demo/model:sizes`` of two ModelKits, of 1 and 2 bytes."""
    command = Command(tmp_path)
    digests = [command.pack("1", "demo/model:v1"), command.pack("22", "demo/model:v2")]
    layout = Layout(tmp_path / "layout", "demo/model")
    manifests = [
        {**layout.resolve(digest).to_json(), "modelMetadata": {"size": size}}
        for digest, size in zip(digests, ("small", "large"), strict=True)
    ]
    value = {"schemaVersion": 2, "mediaType": INDEX, "artifactType": INDEX_ARTIFACT_TYPE, "manifests": manifests}
    layout.tag(layout.push(INDEX, json.dumps(value).encode()), "sizes")
    return command


def test_list_shows_an_index_with_its_modelkits(command: Command) -> None:
    rows = {row["tags"][0]: row for row in command.json("list")["modelkits"]}
    assert {tag: row["kind"] for tag, row in rows.items()} == {"sizes": "index", "v1": "modelkit", "v2": "modelkit"}
    assert rows["sizes"]["modelkits"] == [
        {"digest": rows["v1"]["digest"], "labels": {"size": "small"}},
        {"digest": rows["v2"]["digest"], "labels": {"size": "large"}},
    ]
    (line,) = [line for line in command("list").stdout.splitlines() if " sizes " in line]
    assert line.endswith("index of 2  -")


def test_inspect_looks_into_an_index_or_at_one_of_its_modelkits(command: Command) -> None:
    answer = command.json("inspect", "demo/model:sizes")
    (row,) = [row for row in command.json("list")["modelkits"] if row["kind"] == "index"]
    assert {key: answer[key] for key in ("digest", "tags", "size", "modelkits")} == {
        key: row[key] for key in ("digest", "tags", "size", "modelkits")
    }
    assert answer["media_type"] == INDEX
    assert answer["manifest"]["artifactType"] == INDEX_ARTIFACT_TYPE
    assert json.loads(command("inspect", "demo/model:sizes").stdout) == answer
    one = command.json("inspect", "demo/model:sizes", "--label", "size=small")
    assert one["digest"] == row["modelkits"][0]["digest"]
    assert "config" in one
    assert "no label" in error_of(command("info", "demo/model:sizes", code=2))


def test_diff_takes_labels_for_each_side(command: Command) -> None:
    digests = [command.json("inspect", f"demo/model:{tag}")["digest"] for tag in ("v1", "v2")]
    sides = ("demo/model:sizes", "--old-label", "size=small", "--new-label", "size=large")
    answer = command.json("diff", "demo/model:sizes", *sides, "--files", code=10)
    assert [answer["old"], answer["new"]] == [f"demo/model@{digest}" for digest in digests]
    assert (answer["files"][0]["old"]["size"], answer["files"][0]["new"]["size"]) == (1, 2)
    same = command.json("diff", "demo/model:v2", "demo/model:sizes", "--new-label", "size=large")
    assert same["identical"] is True
    assert "not an index" in error_of(command("diff", "demo/model:v1", *sides, code=2))
    assert "--new-label 'size' is not" in error_of(
        command("diff", "demo/model:v1", "demo/model:sizes", "--new-label", "size", code=2)
    )

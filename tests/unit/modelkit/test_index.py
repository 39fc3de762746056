"""Indexes of ModelKits, and picking one by its labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kitops.modelkit.index import INDEX_ARTIFACT_TYPE, ModelKitIndex
from airflow_provider_kitops.modelkit.inspect import inspect
from airflow_provider_kitops.modelkit.kitfile import Code, Kitfile
from airflow_provider_kitops.modelkit.listing import list_modelkits
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci.descriptor import INDEX, MANIFEST
from airflow_provider_kitops.oci.errors import InvalidInput, KitopsError, NotFound
from airflow_provider_kitops.oci.layout import Layout
from tests.unit.modelkit.conftest import Write


@pytest.fixture
def index(layout: Layout, write: Write) -> str:
    """An index with a small and a large ModelKit, as kit 1.17 writes it."""
    manifests = []
    for number, labels in enumerate(({"size": "small", "gpu": False}, {"size": "large", "gpu": True})):
        context = write({f"{number}.py": str(number)})
        kit = pack(context, Kitfile(code=(Code(path=f"{number}.py"),)), layout)
        manifests.append({**kit.descriptor.to_json(), "modelMetadata": labels})
    value = {"schemaVersion": 2, "mediaType": INDEX, "artifactType": INDEX_ARTIFACT_TYPE, "manifests": manifests}
    descriptor = layout.push(INDEX, json.dumps(value).encode())
    layout.tag(descriptor, "sizes")
    return descriptor.digest


def test_labels_pick_one(layout: Layout, index: str, tmp_path: Path) -> None:
    kit = unpack(layout, "sizes", tmp_path / "out", labels={"size": "large"})
    assert (tmp_path / "out/1.py").read_text() == "1"
    assert ModelKit.read(layout, index, {"gpu": "true"}).descriptor == kit.descriptor
    assert kit.descriptor.digest != index


def test_it_is_listed_with_what_it_holds(layout: Layout, index: str) -> None:
    one = ModelKit.read(layout, index, {"size": "small"}).descriptor.digest
    layout.tag(layout.resolve(one), "small")
    layout.tag(layout.push(INDEX, json.dumps({"mediaType": INDEX, "manifests": []}).encode()), "image")
    sizes, small = list_modelkits(layout)
    assert (sizes.digest, sizes.tags, sizes.name, sizes.version) == (index, ("sizes",), "", "")
    answer = sizes.to_json()
    assert answer["kind"] == "index"
    assert answer["modelkits"][0] == {"digest": one, "labels": {"size": "small", "gpu": False}}
    assert [each["labels"]["size"] for each in answer["modelkits"]] == ["small", "large"]
    assert sizes.size > sum(layout.resolve(each["digest"]).size for each in answer["modelkits"])
    assert (small.digest, small.modelkits, small.to_json()["kind"]) == (one, None, "modelkit")
    assert "modelkits" not in small.to_json()


def test_what_an_index_holds_is_shown_unless_labels_pick_one(layout: Layout, index: str) -> None:
    descriptor, fields = inspect(layout, "sizes", {})
    assert descriptor.digest == index
    assert fields["manifest"]["artifactType"] == INDEX_ARTIFACT_TYPE
    assert [each["labels"]["size"] for each in fields["modelkits"]] == ["small", "large"]
    descriptor, fields = inspect(layout, "sizes", {"size": "large"})
    assert descriptor == ModelKit.read(layout, index, {"size": "large"}).descriptor
    assert fields["config"]["code"][0]["path"] == "1.py"


def test_an_index_is_parsed_once(layout: Layout, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed, loads = [], json.loads
    monkeypatch.setattr(json, "loads", lambda data, **more: parsed.append(data) or loads(data, **more))
    inspect(layout, "sizes", {})
    assert len([data for data in parsed if b"modelMetadata" in data]) == 1


def test_an_index_of_other_things_is_not_shown_as_one_of_modelkits(layout: Layout, index: str) -> None:
    value = dict(ModelKitIndex.read(layout, layout.resolve(index)).manifest)
    del value["artifactType"]
    layout.tag(layout.push(INDEX, json.dumps(value).encode()), "images")
    with pytest.raises(InvalidInput, match="not one of ModelKits"):
        inspect(layout, "images", {})


def test_labels_that_none_or_several_have_are_refused_with_what_there_is(layout: Layout, index: str) -> None:
    with pytest.raises(NotFound, match="size=huge") as nobody:
        ModelKit.read(layout, "sizes", {"size": "huge"})
    with pytest.raises(InvalidInput, match="no label") as several:
        ModelKit.read(layout, "sizes")
    for error in (nobody, several):
        assert '"size":"small"' in str(error.value)
        assert '"gpu":true' in str(error.value)


def test_a_single_modelkit_has_no_labels_to_pick_by(layout: Layout, index: str) -> None:
    one = ModelKit.read(layout, index, {"size": "small"}).descriptor.digest
    with pytest.raises(InvalidInput, match="not an index"):
        ModelKit.read(layout, one, {"size": "small"})


def entry(digest: str, labels: object) -> dict[str, object]:
    return {"mediaType": MANIFEST, "digest": digest, "size": 1, "modelMetadata": labels}


def index_of(*entries: dict[str, object]) -> ModelKitIndex:
    return ModelKitIndex.parse(json.dumps({"mediaType": INDEX, "manifests": entries}).encode(), "demo:sizes")


def test_a_modelkit_that_is_listed_twice_is_one() -> None:
    one, other = (f"sha512:{digit * 128}" for digit in "ab")
    index = index_of(entry(one, {"size": "small"}), entry(other, {"size": "large"}), entry(one, {"size": "small"}))
    assert index.pick({"size": "small"}, "demo:sizes") == index.modelkits[0]
    with pytest.raises(InvalidInput, match=r"^2 ModelKits"):
        index.pick({}, "demo:sizes")


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "9" * 5000])
def test_a_number_that_json_has_no_form_for_is_refused_with_the_index(number: str) -> None:
    data = json.dumps({"mediaType": INDEX, "manifests": [entry(f"sha256:{'a' * 64}", {"size": "?"})]})
    with pytest.raises(InvalidInput, match="demo:sizes is malformed"):
        ModelKitIndex.parse(data.replace('"?"', number).encode(), "demo:sizes")
    with pytest.raises(InvalidInput, match="demo:sizes is malformed"):
        ModelKitIndex.parse(f'{{"mediaType": "{INDEX}", "manifests": [], "x": {number}}}'.encode(), "demo:sizes")


def test_long_labels_are_shortened_in_messages() -> None:
    digests = [f"sha256:{number:064x}" for number in range(30)]
    index = index_of(*(entry(digest, {"size": "x" * 10_000}) for digest in digests))
    with pytest.raises(NotFound, match="and 10 more") as refused:
        index.pick({"size": "y" * 10_000}, "demo:sizes")
    assert digests[0] in str(refused.value)
    assert len(str(refused.value)) < 8_000


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["manifests", "mediaType", "annotations", "modelMetadata", "digest", "size"]),
                        inner, max_size=4)))  # fmt: skip
def test_a_hostile_index_is_an_error_or_an_index(value: object) -> None:
    try:
        found = ModelKitIndex.parse(json.dumps(value).encode(), "x")
    except KitopsError:
        return
    assert isinstance(found.modelkits, tuple)

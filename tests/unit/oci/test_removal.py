"""Removing ModelKits and tags: all or nothing, and nothing by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_kitops.oci.errors import Conflict, InvalidReference, NotFound
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.oci.removal import remove, untag
from tests.artifacts import put_artifact


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, "demo/model")


def at(selector: str) -> Reference:
    return Reference.parse(f"demo/model{selector}")


def test_by_tag_what_other_tags_name_stays(layout: Layout) -> None:
    manifest = put_artifact(layout, b"one", tag="v1")
    layout.tag(manifest, "latest")
    first = remove(layout, at(":v1"))
    assert (first.descriptor, first.tags, first.removed) == (manifest, ("latest",), False)
    assert first.size > manifest.size
    last = remove(layout, at(":latest"))
    assert (last.tags, last.removed) == ((), True)
    assert not layout.exists(manifest)


@pytest.mark.parametrize("force", [True, False])
def test_by_digest_or_by_force_all_tags_go(layout: Layout, force: bool) -> None:
    manifest = put_artifact(layout, b"one", tag="v1")
    layout.tag(manifest, "latest")
    assert remove(layout, at(":v1" if force else f"@{manifest.digest}"), force=force).removed
    assert layout.tags() == []


def test_nothing_is_removed_by_a_default(layout: Layout) -> None:
    put_artifact(layout, b"one", tag="latest")
    with pytest.raises(InvalidReference, match="neither tag nor digest"):
        remove(layout, at(""))
    with pytest.raises(InvalidReference, match="No tag"):
        untag(layout, [])
    assert layout.tags() == ["latest"]


def test_tags_are_removed_all_or_none(layout: Layout) -> None:
    manifest = put_artifact(layout, b"one", tag="v1")
    with pytest.raises(NotFound):
        untag(layout, ["v1", "v2"])
    assert layout.tags() == ["v1"]
    assert untag(layout, ["v1", "v2"], missing_ok=True) == {"v1": manifest}
    assert untag(layout, ["v1"], missing_ok=True) == {}
    assert layout.exists(manifest)


def test_a_tag_that_has_moved_is_left_alone(layout: Layout) -> None:
    old, new = put_artifact(layout, b"old", tag="v1"), put_artifact(layout, b"new", tag="latest")
    with pytest.raises(Conflict) as caught:
        untag(layout, ["v1", "latest"], digest=old.digest)
    assert new.digest in str(caught.value)
    assert layout.tags() == ["latest", "v1"]

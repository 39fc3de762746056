"""Removing ModelKits and tags: all or nothing, and nothing by accident."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from airflow_provider_kitops.oci.content import MAX_MANIFEST_SIZE
from airflow_provider_kitops.oci.descriptor import MANIFEST, Descriptor
from airflow_provider_kitops.oci.errors import Conflict, InvalidReference, NotFound
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.oci.removal import readable_size, remove, untag
from airflow_provider_kitops.oci.target import Target
from tests.artifacts import put_artifact, put_index


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


class _Racing(Layout):
    """A layout where somebody else removes ``lost`` after the tags were listed, or before they are removed."""

    lost = ""

    def tags(self) -> list[str]:
        found = super().tags()
        if self.lost:
            lost, self.lost = self.lost, ""
            super().untag(lost)
        return found

    def untag(self, tag: str) -> None:
        if tag == self.lost:
            self.lost = ""
            super().untag(tag)
        super().untag(tag)


def test_a_tag_that_vanishes_meanwhile_hides_no_removal(tmp_path: Path) -> None:
    layout = _Racing(tmp_path, "demo/model")
    manifest = put_artifact(layout, b"one", tag="v1")
    put_artifact(layout, b"other", tag="lost")
    layout.lost = "lost"
    done = remove(layout, at(":v1"), missing_ok=True)
    assert done is not None
    assert done.removed
    assert not layout.exists(manifest)


def test_what_is_missing_may_be_passed_over(layout: Layout) -> None:
    assert remove(layout, at(":v1"), missing_ok=True) is None
    with pytest.raises(NotFound):
        remove(layout, at(":v1"))


def test_only_what_was_untagged_is_reported(tmp_path: Path) -> None:
    layout = _Racing(tmp_path, "demo/model")
    manifest = put_artifact(layout, b"one", tag="v1")
    layout.tag(manifest, "v2")
    layout.lost = "v1"
    assert untag(layout, ["v1", "v2"], missing_ok=True) == {"v2": manifest}


def test_what_is_damaged_has_a_size_all_the_same(layout: Layout) -> None:
    manifest = put_artifact(layout, b"one", tag="v1")
    large = Descriptor(MANIFEST, manifest.digest, MAX_MANIFEST_SIZE + 1)
    assert readable_size(layout, large) == large.size
    (layout.path / "blobs" / "sha256" / manifest.digest[7:]).unlink()
    assert readable_size(layout, manifest) == manifest.size


@pytest.mark.parametrize("tag", ["both", ""])
def test_what_an_index_holds_is_removed_by_force_only(layout: Layout, tag: str) -> None:
    one, two = put_artifact(layout, b"one", tag="v1"), put_artifact(layout, b"two")
    index = put_index(layout, one, two, tag=tag)
    for reference in (at(":v1"), at(f"@{one.digest}")):
        with pytest.raises(Conflict, match=f"The index {tag or index.digest}"):
            remove(layout, reference)
    layout.tag(one, "v2")
    assert remove(layout, at(":v2")).tags == ("v1",)
    assert remove(layout, at(":v1"), force=True).removed
    remove(layout, at(f"@{index.digest}"))
    assert remove(layout, at(f"@{two.digest}")).removed


class _Elsewhere:
    """A layout that, as a registry, does not tell what has no tag."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __getattr__(self, name: str) -> object:
        return getattr(self._layout, name)


def test_of_a_registry_the_tagged_indexes_are_known(layout: Layout) -> None:
    one, two = put_artifact(layout, b"one", tag="v1"), put_artifact(layout, b"two", tag="v2")
    put_index(layout, one, tag="both")
    put_index(layout, two)
    target = cast("Target", _Elsewhere(layout))
    with pytest.raises(Conflict, match="The index both, sha256"):
        remove(target, at(":v1"))
    assert remove(target, at(":v2")).removed

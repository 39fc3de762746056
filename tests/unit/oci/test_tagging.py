"""Which tags may move."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_kitops.oci.descriptor import MANIFEST, Descriptor
from airflow_provider_kitops.oci.errors import Conflict, InvalidReference, NotFound
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.tagging import DEFAULT_MUTABLE_TAGS, apply_tags, split_tags
from tests.artifacts import put_artifact


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, "demo/model")


def test_tags_are_given_as_text_or_list() -> None:
    assert split_tags("v1,latest,v1") == ("v1", "latest")
    assert split_tags(["b", "a"]) == ("b", "a")
    assert split_tags(None) == split_tags([]) == ()
    for wrong in ("", "v1,", "a b", ".hidden", ["x" * 129], [1]):
        with pytest.raises(InvalidReference):
            split_tags(wrong)  # type: ignore[arg-type]


def test_only_tags_like_the_patterns_move(layout: Layout) -> None:
    old, new = put_artifact(layout, b"old"), put_artifact(layout, b"new")
    apply_tags(layout, old, "latest,v1,nightly-7", mutable=DEFAULT_MUTABLE_TAGS)
    with pytest.raises(Conflict) as caught:
        apply_tags(layout, new, "latest,v1", mutable=DEFAULT_MUTABLE_TAGS)
    assert old.digest in str(caught.value)
    assert new.digest in str(caught.value)
    assert layout.resolve("latest") == old, "nothing moves if one may not"
    apply_tags(layout, new, "latest,nightly-7", mutable=("latest", "nightly-*"))
    assert layout.resolve("latest") == layout.resolve("nightly-7") == new


def test_a_tag_that_is_set_already_is_no_conflict(layout: Layout) -> None:
    manifest = put_artifact(layout, b"old", tag="v1")
    apply_tags(layout, manifest, "v1", mutable=())


def test_what_is_not_stored_cannot_be_tagged(layout: Layout) -> None:
    with pytest.raises(NotFound):
        apply_tags(layout, Descriptor.of(MANIFEST, b"{}"), "v1", mutable=())

"""Naming a manifest again."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_kitops.oci.errors import Conflict, InvalidReference
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.retag import retag
from airflow_provider_kitops.oci.tagging import DEFAULT_MUTABLE_TAGS
from tests.artifacts import put_artifact


@pytest.mark.parametrize("repository", ["demo/model", "other/name"])
def test_tags_are_set_in_either_repository_if_they_may_move(tmp_path: Path, repository: str) -> None:
    here, there = Layout(tmp_path, "demo/model"), Layout(tmp_path, repository)
    old = put_artifact(there, b"old", tag="v0")
    manifest = put_artifact(here, b"one")
    with pytest.raises(Conflict, match=old.digest):
        retag(here, manifest, there, ["latest", "v0"], mutable_tags=DEFAULT_MUTABLE_TAGS)
    assert there.tags() == ["v0"]
    retag(here, manifest, there, ["latest", "v1"], mutable_tags=DEFAULT_MUTABLE_TAGS)
    assert there.resolve("latest") == there.resolve("v1") == manifest


def test_naming_again_needs_a_name(tmp_path: Path) -> None:
    here = Layout(tmp_path, "demo/model")
    manifest = put_artifact(here, b"one")
    with pytest.raises(InvalidReference, match="No tag"):
        retag(here, manifest, here, [], mutable_tags=())

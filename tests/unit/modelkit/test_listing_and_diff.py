"""Listing shows what tags name; comparing shows fields and layers that differ."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from airflow_provider_kitops.modelkit.diff import FieldChange, diff
from airflow_provider_kitops.modelkit.kitfile import Docs, Kitfile, Model, Package
from airflow_provider_kitops.modelkit.listing import list_modelkits
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.layout import Layout
from tests.unit.modelkit.conftest import Write

OLD = Kitfile(package=Package("demo", "1"), model=Model(path="w", parameters={"rank": 4}), docs=(Docs("d"),))
NEW = Kitfile(package=Package("demo", "2"), model=Model(path="w", parameters={"rank": 8}))


def test_all_tags_of_a_modelkit_are_in_one_line(layout: Layout, write: Write) -> None:
    context = write({"w/a": "1", "d": "2"})
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    old = pack(context, OLD, layout, "a,c", created=moment)
    new = pack(context, NEW, layout, "b")
    config = layout.push("application/vnd.oci.image.config.v1+json", b"{}")
    layout.tag(layout.push("application/vnd.oci.image.manifest.v1+json", _image(config.digest)), "image")
    first, second = list_modelkits(layout)
    assert (first.digest, first.tags, first.version, first.created) == (old.descriptor.digest, ("a", "c"), "1", moment)
    assert (second.digest, second.tags, second.name, second.created) == (new.descriptor.digest, ("b",), "demo", None)
    assert second.size == new.size == len(new.manifest) + len(new.config) + new.layers[0].descriptor.size


def test_an_empty_repository_has_none(layout: Layout) -> None:
    assert list_modelkits(layout) == []


def test_a_difference_names_fields_and_layers(layout: Layout, write: Write) -> None:
    context = write({"w/a": "1", "d": "2"})
    old = pack(context, OLD, layout)
    (context / "w" / "a").write_text("3")
    new = pack(context, NEW, layout)
    found = diff(old, new)
    assert found.fields == (
        FieldChange("package.version", "1", "2"),
        FieldChange("model.parameters.rank", 4, 8),
        FieldChange("docs[0].path", "d", None),
    )
    assert [(change.kind, change.path, change.new is None) for change in found.layers] == [
        ("model", "w", False),
        ("docs", "d", True),
    ]


def test_compression_makes_no_difference(layout: Layout, write: Write) -> None:
    context = write({"w/a": "1" * 1000})
    plain, zipped = pack(context, NEW, layout), pack(context, NEW, layout, compression="gzip")
    assert plain.descriptor != zipped.descriptor
    assert not diff(plain, zipped)


def _image(config: str) -> bytes:
    value = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2}
    return json.dumps({"schemaVersion": 2, "config": value, "layers": []}).encode()
